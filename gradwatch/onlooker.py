"""A drill, seen from outside, as the service sees a run.

The training runs in a process of its own. Here its run directory is read, with
the service's own judgement of runs. Loads neither Keras nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from gradwatch.health import STALLED_AFTER, health
from gradwatch.records import Finding
from gradwatch.runstate import ENDED, Snapshot
from gradwatch.service.runs import STATE, read_snapshot
from gradwatch.sinks.findings import read_findings
from gradwatch.testing.drills import Drill

__all__ = ["Seen", "State", "look_on"]

_PAUSE = 0.1  # seconds between two looks
_PATIENCE = 60.0  # seconds; a process that is gone is lost after 45
_SLOW = 3.0  # times as long as before; the drill's steps take ten times
_LINES = 15  # of what a process that failed has said


class State(NamedTuple):
    """A state in which a run was seen.

    Attributes:
        name: a phase, a health or `slow`.
        reason: why it ended, `""` otherwise.
        seconds: from the fault until it was seen, `None` before it.
    """

    name: str
    reason: str
    seconds: float | None

    def __str__(self) -> str:
        """As `gradwatch status` writes it."""
        return f"{self.name} ({self.reason})" if self.reason else self.name


@dataclass
class Seen:
    """What was seen of a drill.

    Attributes:
        drill: which one.
        run: the run directory, `""` if there is none.
        fault: its `step`, `time` in Unix seconds and `meaning`, once it came.
        findings: each with the seconds as in `State`.
        states: one after the other.
        error: the last lines of a process that failed on its own account.
    """

    drill: Drill
    run: str = ""
    fault: Mapping[str, Any] = field(default_factory=dict)
    findings: list[tuple[Finding, float | None]] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether all that must be seen was seen."""
        came = bool(self.fault) or self.drill.name == "healthy"
        states = [state.name for state in self.states]
        return came and self._named() and self.drill.state in states

    def _named(self) -> bool:
        if self.drill.name == "healthy":
            return all(f.severity == "info" for f, _ in self.findings)
        # What climbs from the fault on is told since the step before it.
        first = self.fault.get("step", 0) - 1
        found = {f.rule for f, _ in self.findings if f.first_step >= first}
        return not self.drill.rules or not found.isdisjoint(self.drill.rules)

    def plain(self) -> dict[str, Any]:
        """Returns it as plain data; all seconds are those since the fault."""
        return {
            "scenario": self.drill.name,
            "run": self.run,
            "fault": self.fault,
            "expected_rules": self.drill.rules,
            "expected_state": self.drill.state,
            "findings": [
                {"seconds": seconds, **asdict(finding)}
                for finding, seconds in self.findings
            ],
            "states": [state._asdict() for state in self.states],
            "next_alert": self.drill.alert,
            "passed": self.passed,
            "error": self.error,
        }


def look_on(
    seen: Seen,
    logdir: Path,
    at_step: int,
    seconds: float,
    *,
    clock: Callable[[], float] = time.time,
    stalled_after: float = STALLED_AFTER,
) -> Iterator[str]:
    """Runs a drill; yields what is new, in words, as soon as it is seen.

    Args:
        seen: is filled.
        logdir: folder for the run directory.
        at_step: see `Drill`.
        seconds: see `Drill`.
        clock: Unix seconds by which the run is judged.
        stalled_after: see `health`.
    """
    pace = _Pace()
    with _training(seen.drill, logdir, at_step, seconds) as (process, told):
        ended = 0.0
        while True:
            over = process.poll() is not None  # before the last look at all
            for line in told:
                yield _take(seen, json.loads(line))
            yield from _new_findings(seen)
            yield from _new_state(seen, pace, clock(), stalled_after)
            ended = ended or (time.monotonic() if over else 0.0)
            if over and _is_final(seen, time.monotonic() - ended):
                break
            time.sleep(_PAUSE)
        seen.error = "" if seen.passed else _last_lines(told)


@contextlib.contextmanager
def _training(
    drill: Drill, logdir: Path, at_step: int, seconds: float
) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """Trains in a process; yields it and what it tells."""
    command = [sys.executable, "-m", "gradwatch.testing.drilled", drill.name]
    command += ["--logdir", str(logdir), "--at-step", str(at_step)]
    command += ["--seconds", str(seconds)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("wb") as told, err.open("wb") as said:
            process = subprocess.Popen(
                command,
                stdout=told,
                stderr=said,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            )
        try:
            with out.open() as lines:
                yield process, lines
        finally:
            process.kill()
            process.wait()


def _last_lines(told: IO[str]) -> str:
    """Returns the end of what the process has said on its standard error."""
    path = Path(told.name).with_name("err")
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-_LINES:])


def _take(seen: Seen, told: Mapping[str, Any]) -> str:
    """Takes what the process has told, see `testing/drilled.py`."""
    if "run" in told:
        seen.run = told["run"]
        return f"Run: {seen.run}"
    seen.fault = told
    return f"Step {told['step']}: {told['meaning']}."


def _since(seen: Seen) -> float | None:
    """Returns the seconds since the fault, `None` before it."""
    if not seen.fault:
        return None
    return round(max(0.0, time.time() - float(seen.fault["time"])), 3)


def _shown(seconds: float | None) -> str:
    return " " * 9 if seconds is None else f"{seconds:6.1f} s "


def _new_findings(seen: Seen) -> Iterator[str]:
    if not seen.run:
        return
    for finding in read_findings(seen.run)[len(seen.findings) :]:
        seconds = _since(seen)
        seen.findings.append((finding, seconds))
        yield (
            f"{_shown(seconds)} {finding.severity}: {finding.rule} from step "
            f"{finding.first_step} on: {finding.message}"
        )


def _new_state(
    seen: Seen, pace: _Pace, now: float, stalled_after: float
) -> Iterator[str]:
    if not seen.run:
        return
    path = Path(seen.run, STATE)
    try:
        snapshot = read_snapshot(path.parent, path)
    except (FileNotFoundError, ValueError):
        return
    told = health(snapshot, now, stalled_after)
    name = snapshot["phase"] if told == "ok" else told
    slow = pace.is_slow(snapshot, bool(seen.fault))
    if slow and name == "running" and seen.drill.state == "slow":
        name = "slow"  # others become slower to last, see `drilled.py`
    state = State(name, snapshot["reason"], _since(seen))
    if not seen.states or seen.states[-1][:2] != state[:2]:
        seen.states.append(state)
        yield f"{_shown(state.seconds)} {state}"


def _is_final(seen: Seen, seconds: float) -> bool:
    """Whether nothing more can come, `seconds` after the process has ended."""
    last = seen.states[-1].name if seen.states else ""
    return last in (*ENDED, "lost") or not last or seconds > _PATIENCE


class _Pace:
    """How long a step takes, before and after the fault.

    It is the mean between two snapshots, as Prometheus has it by
    `rate(step_duration_seconds_sum) / rate(step_duration_seconds_count)`.
    """

    def __init__(self) -> None:
        self._usual: list[float] = []
        self._last = (0, 0.0)
        self._after = self._slow = False

    def is_slow(self, snapshot: Snapshot, after: bool) -> bool:
        """Whether a step takes several times as long as before the fault.

        Args:
            snapshot: the run's present.
            after: whether the fault has come.
        """
        durations = snapshot["step_duration"]
        now = (sum(durations["counts"]), float(durations["sum"]))
        steps, seconds = now[0] - self._last[0], now[1] - self._last[1]
        if steps > 0:
            mean, self._last = seconds / steps, now
            if not after:
                self._usual.append(mean)
            elif self._after and self._usual:
                self._slow = mean > _SLOW * statistics.median(self._usual)
            self._after = after
        return self._slow
