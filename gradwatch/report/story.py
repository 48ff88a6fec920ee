"""What a report says first: how the run went, why, and its last numbers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gradwatch.drawing.words import count, duration, number
from gradwatch.records import SEVERITIES, Finding
from gradwatch.report.contents import Contents
from gradwatch.runstate import ENDED

__all__ = [
    "Verdict",
    "cause",
    "last_values",
    "ranked",
    "verdict",
]

_VALUES = {
    "loss": "loss",
    "validation_loss": "validation loss",
    "gradient_norm": "gradient norm",
    "applied_gradient_norm": "gradient norm, applied",
    "learning_rate": "learning rate",
    "loss_scale": "loss scale",
    "step_time": "step time, s",
    "examples_per_second": "examples/s",
}


class Verdict(NamedTuple):
    """How the run went.

    Attributes:
        mood: `bad`, `warn` or `good`.
        title: in a few words.
        text: steps, time and number of findings.
    """

    mood: Literal["bad", "warn", "good"]
    title: str
    text: str


def verdict(contents: Contents) -> Verdict:
    """Returns how the run went, as far as it is known."""
    snapshot = contents.snapshot
    phase, reason = snapshot["phase"], snapshot["reason"]
    title = phase.capitalize() + (f": {reason}" if reason else "")
    severities = {finding.severity for finding in contents.findings}
    mood: Literal["bad", "warn", "good"] = "good"
    if contents.health == "lost":
        title = f"Lost: the last sign of life told {phase}"
        mood = "bad"
    elif contents.health == "stalled":
        title, mood = "Stalled: no step ends any more", "bad"
    elif phase == "failed" or "critical" in severities:
        mood = "bad"
    elif phase == "interrupted" or "warning" in severities:
        mood = "warn"
    told = len(contents.findings)
    findings = (
        f"{told} finding{'s' if told > 1 else ''}" if told else "no findings"
    )
    return Verdict(mood, title, f"{_progress(contents)}, {findings}.")


def _progress(contents: Contents) -> str:
    snapshot = contents.snapshot
    steps, planned = snapshot["steps"], snapshot["planned_steps"]
    of = f" of {count(planned)}" if planned else ""
    end = (
        snapshot["end"] if snapshot["phase"] in ENDED else snapshot["heartbeat"]
    )
    lasted = max(float(end) - snapshot["run"]["start"], 0.0)
    return f"{count(steps)}{of} steps in {duration(lasted)}"


def cause(contents: Contents) -> tuple[str, str]:
    """Returns what went wrong and what to do, in the fewest words known.

    The headline of the last autopsy, else the first of the most severe
    findings; two empty texts if there is neither.
    """
    for autopsy in reversed(contents.autopsies):
        if autopsy.verdict not in ("unfinished", "not reproducible"):
            return autopsy.headline(), autopsy.advice
    serious = [f for _, f in ranked(contents) if f.severity != "info"]
    return (serious[0].message, serious[0].advice) if serious else ("", "")


def ranked(contents: Contents) -> list[tuple[int, Finding]]:
    """Returns findings with their numbers, the most severe first."""
    return sorted(
        enumerate(contents.findings, 1),
        key=lambda each: (-SEVERITIES.index(each[1].severity), each[0]),
    )


def last_values(contents: Contents) -> dict[str, str]:
    """Returns name -> newest value of what belongs to the run."""
    newest = {
        signal: value
        for signal, subject, value in contents.snapshot["values"]
        if not subject
    }
    told = {
        name: number(newest[signal])
        for signal, name in _VALUES.items()
        if signal in newest
    }
    for kind, prefix in ("metric", ""), ("validation_metric", "validation "):
        told |= {
            f"{prefix}{subject}, last epoch": number(value)
            for signal, subject, value in contents.snapshot["values"]
            if signal == kind
        }
    return told
