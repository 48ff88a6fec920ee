"""What is told of a run: the JSON of the API, and what the pages show.

Plain data; NaN and the infinities are floats here, `strict_json.dumps` makes
texts of them. `None` = not known. Imports words and the present only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from gradwatch.exports import CHIEF
from gradwatch.health import STALLED_AFTER, health
from gradwatch.records import Severity
from gradwatch.runstate import ENDED, Snapshot
from gradwatch.service.runs import Seen
from gradwatch.sheets import clean

__all__ = ["DETAILS", "FIELDS", "chief", "details", "row", "rows"]

FIELDS: Mapping[str, str] = {
    "run": "id of the run, the name of its directory",
    "name": "what the user calls it",
    "labels": "the user's own key-value pairs",
    "place": "its directory, below the `--logdir` that it is in",
    "host": "name of the machine",
    "model": "name of the model",
    "optimizer": "class of the optimizer",
    "state": "what the trainer told: `starting`, `running`, `evaluating`, "
    "`finished`, `failed`, `interrupted`",
    "reason": 'why it ended so: `nonfinite`, the name of an exception, or `""`',
    "health": "what the service sees: `ok`, `stalled` or `lost`; the worst of "
    "its ranks",
    "ranks": "number of its processes",
    "start": "Unix time of its start",
    "end": "Unix time of its end, 0 while it has none",
    "heartbeat": "Unix time of its last sign of life",
    "beat_age_seconds": "time since then, by the run's own clock where it is "
    "known",
    "epoch": "last finished epoch, 0-based; -1 = none yet",
    "steps": "training steps so far",
    "planned_steps": "steps planned, 0 = not known",
    "steps_per_second": "mean over the run, without pauses",
    "eta_seconds": "time until the planned steps are done, as it went so far, "
    "with pauses",
    "loss": "of the last step",
    "validation_loss": "of the last epoch",
    "gradient_norm": "of the last step",
    "learning_rate": "of the last step",
    "findings": "severity -> number of findings",
    "nonfinite_steps": "steps whose loss or gradient was not finite",
    "last_nonfinite_step": "number of the last such step, -1 = none",
}
"""Field of a run in the API -> its meaning."""

DETAILS: Mapping[str, str] = {
    "versions": "package -> version",
    "resumed_from": "id of the run that it continues",
    "values": "newest values as `[signal, subject, value]`",
    "counters": "as in `state.json`",
    "history": "`steps`, and `series` as `[signal, subject, values]`: at most "
    "120 points over the whole run",
    "last_findings": "the last 50, oldest first",
    "autopsies": "`step`, `verdict` and `headline` of each",
    "dropped": "sink -> Blocks that its full queue has dropped",
    "errors": "sink -> exceptions that it has raised",
    "queued": "sink -> records that wait for it",
    "costs": "phase -> seconds that watching took beside the step",
}
"""More fields of `/api/runs/{id}` -> their meaning."""

_NEWEST = ("loss", "validation_loss", "gradient_norm", "learning_rate")


def rows(
    seen: Iterable[Seen], clock: float, stalled_after: float = STALLED_AFTER
) -> list[dict[str, Any]]:
    """Returns what the API says of each run, in the order they come in.

    Args:
        seen: the workers of some runs.
        clock: the present, Unix seconds.
        stalled_after: see `health`.
    """
    runs: dict[str, list[Seen]] = {}
    for each in seen:
        runs.setdefault(each.snapshot["run"]["id"], []).append(each)
    return [row(ranks, clock, stalled_after) for ranks in runs.values()]


def row(
    ranks: Sequence[Seen], clock: float, stalled_after: float = STALLED_AFTER
) -> dict[str, Any]:
    """Returns the fields of `FIELDS`; those of a run whose ranks are given."""
    first = chief(ranks)
    snapshot, now = first.snapshot, first.now(clock)
    run = snapshot["run"]
    healths = [health(s.snapshot, s.now(clock), stalled_after) for s in ranks]
    worst = max(healths, key=("ok", "stalled", "lost").index)
    planned = max(int(snapshot["planned_steps"]), 0)
    return {
        "run": run["id"],
        "name": clean(run["name"]),
        "labels": run.get("labels", {}),
        "place": clean(first.place),
        "host": clean(run["host"]),
        "model": clean(snapshot["model"]),
        "optimizer": clean(snapshot["optimizer"]),
        "state": snapshot["phase"],
        "reason": clean(snapshot["reason"]),
        "health": worst,
        "ranks": len(ranks),
        "start": run["start"],
        "end": snapshot["end"],
        "heartbeat": snapshot["heartbeat"],
        "beat_age_seconds": max(now - float(snapshot["heartbeat"]), 0.0),
        "epoch": snapshot["epoch"],
        "steps": snapshot["steps"],
        "planned_steps": planned,
        "steps_per_second": _speed(snapshot),
        "eta_seconds": _eta(snapshot, planned) if worst == "ok" else None,
        **_present(snapshot),
    }


def _present(snapshot: Snapshot) -> dict[str, Any]:
    """The newest numbers, and what was bad so far."""
    newest, counters = _newest(snapshot), snapshot["counters"]
    told = {signal: newest.get(signal) for signal in _NEWEST}
    bad: Counter[str] = Counter()
    for source, _, count in counters["nonfinite"]:
        bad[source] += count
    return {
        **{s: None if v is None else float(v) for s, v in told.items()},
        "findings": _severities(counters["findings"]),
        "nonfinite_steps": max(bad.values(), default=0),
        "last_nonfinite_step": counters["last_nonfinite_step"],
    }


def details(
    ranks: Sequence[Seen], clock: float, stalled_after: float = STALLED_AFTER
) -> dict[str, Any]:
    """Returns the fields of `FIELDS` and `DETAILS`."""
    snapshot = chief(ranks).snapshot
    history = snapshot.get("history", {"steps": [], "series": []})
    series = [[*slot, list(values)] for *slot, values in history["series"]]
    return {
        **row(ranks, clock, stalled_after),
        "versions": snapshot["run"].get("versions", {}),
        "resumed_from": snapshot.get("resumed_from", ""),
        "values": snapshot["values"],
        "counters": snapshot["counters"],
        "history": {"steps": history["steps"], "series": series},
        "last_findings": snapshot.get("findings", []),
        "autopsies": snapshot.get("autopsies", []),
        "dropped": snapshot["dropped"],
        "errors": snapshot["errors"],
        "queued": snapshot.get("queued", {}),
        "costs": snapshot.get("costs", {}),
    }


def _newest(snapshot: Snapshot) -> dict[str, Any]:
    """Signal -> newest value, of those that belong to the run."""
    return {s: v for s, subject, v in snapshot["values"] if not subject}


def chief(ranks: Sequence[Seen]) -> Seen:
    """Returns the rank that speaks for a run, any if it is not there."""
    chiefs = [s for s in ranks if s.snapshot.get("rank", CHIEF) == CHIEF]
    return (chiefs or list(ranks))[0]


def _severities(findings: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    counts = Counter(dict.fromkeys(get_args(Severity), 0))
    for _, severity, count in findings:
        counts[severity] += count
    return dict(counts)


def _speed(snapshot: Snapshot) -> float | None:
    """Steps a second, of those whose time is known."""
    durations = snapshot["step_duration"]
    seconds, steps = float(durations["sum"]), sum(durations["counts"])
    return steps / seconds if seconds > 0 else None


def _eta(snapshot: Snapshot, planned: int) -> float | None:
    """Seconds left, if pauses and validations go on as they did."""
    left = planned - snapshot["steps"]
    done = sum(snapshot["step_duration"]["counts"]) + 1
    if snapshot["phase"] in ENDED or left <= 0 or done < 10:
        return None
    took = float(snapshot["last_step_time"]) - float(snapshot["run"]["start"])
    return float(max(took, 0.0) / done * left)
