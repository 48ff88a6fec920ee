"""How a run is, as an onlooker sees it: alive, stalled in a step, or lost.

The trainer itself tells the states (starting, running, ...); that it was
killed, or that a step of it hangs, it cannot tell. Imports words and the
present only.
"""

from __future__ import annotations

from typing import Literal

from gradwatch.runstate import ENDED, Snapshot

__all__ = ["SLACK", "STALLED_AFTER", "Health", "health"]

Health = Literal["ok", "stalled", "lost"]

SLACK = 30.0
"""Seconds that a promised sign of life may be late: disks and networks may
delay a state.json."""

STALLED_AFTER = 300.0
"""Seconds that a step may take at least, before it hangs."""

_TIMES = 20.0  # the mean time of an execution, before it hangs
_LONG = 3600.0  # seconds that what is no step may take: compiling, a checkpoint


def health(
    snapshot: Snapshot, now: float, stalled_after: float = STALLED_AFTER
) -> Health:
    """Returns how a run is.

    A run is `lost` when a sign of life that it promised is 30 s late: its
    process was killed, its machine cannot be reached, or all of its threads
    hang. It is `stalled` when it gives signs of life, but a step takes longer
    than `stalled_after` and than 20 executions did on average; an execution
    that is being compiled, and what happens between two steps, a checkpoint
    say, may take an hour. An evaluation never stalls.

    Args:
        snapshot: the run's present.
        now: Unix seconds, as the run's own clock has it.
        stalled_after: seconds.
    """
    if snapshot["phase"] in ENDED:
        return "ok"
    promised = max(float(snapshot["next_beat"]), float(snapshot["heartbeat"]))
    if now > promised + SLACK:
        return "lost"
    if snapshot["phase"] == "evaluating":
        return "ok"
    # What is told is as old as the last sign of life, and nobody knows more.
    now = float(snapshot["heartbeat"])
    began = float(snapshot.get("step_began", 0.0))
    if began and not snapshot.get("compiling", False):
        took = float(snapshot["step_duration"]["sum"])
        mean = took / max(snapshot.get("executions", 0), 1)
        return _judged(now - began, max(stalled_after, _TIMES * mean))
    since = max(
        began,
        float(snapshot["last_step_time"]),
        float(snapshot.get("phase_since", 0.0)),
        float(snapshot["run"]["start"]),
    )
    return _judged(now - since, max(stalled_after, _LONG))


def _judged(seconds: float, limit: float) -> Health:
    return "stalled" if seconds > limit else "ok"
