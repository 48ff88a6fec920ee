"""Two runs side by side: what each has come to. numpy only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.compare.setup import Pair
from gradwatch.compare.tables import TIMES, Recorded
from gradwatch.records import Finding
from gradwatch.runstate import Snapshot
from gradwatch.service.rows import row
from gradwatch.service.runs import Seen

__all__ = ["Curves", "Told", "curves", "findings", "gradients", "totals"]

_SHOWN = ("loss", "gradient_norm", "learning_rate")
_TIMES = (
    "step time, s, median",
    "of it waiting for the batch, s",
    "examples/s, median",
)


@dataclass(frozen=True, slots=True)
class Told:
    """A finding of one run, or of both.

    Attributes:
        rule: its rule.
        subject: as the first run calls it.
        steps: its first step in each run; `None` where it was not found.
    """

    rule: str
    subject: str
    steps: tuple[int | None, int | None]


Points = list[float | None]
"""A value at each of some steps; `None` = not measured."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Some signals of the run at some steps.

    Attributes:
        steps: N of those that are recorded in both, evenly over all.
        series: signal -> N values of the first run, N of the other one.
    """

    steps: list[int]
    series: dict[str, tuple[Points, Points]]


def totals(
    snapshots: tuple[Snapshot, Snapshot], recorded: tuple[Recorded, Recorded]
) -> list[Pair]:
    """Returns what runs have come to, of what either knows."""
    a, b = (dict(_totals(*each)) for each in zip(snapshots, recorded))
    return [Pair(name, (a.get(name), b.get(name))) for name in {**a, **b}]


def _totals(
    snapshot: Snapshot, recorded: Recorded
) -> Iterator[tuple[str, Any]]:
    """Yields name and value, in the order in which one looks at them."""
    told = row([Seen(snapshot)], time.time())
    state = told["state"] if told["health"] == "ok" else told["health"]
    yield "state", f"{state} ({told['reason']})" if told["reason"] else state
    yield "steps", told["steps"]
    yield from _known("last loss", [told["loss"]], np.max)
    mean = snapshot["loss_window"].get("mean")
    yield from _known("mean of the last losses", [mean], np.max)
    yield from _known("lowest loss", recorded.values("loss"), np.min)
    yield from _epochs(recorded)
    norms = recorded.values("gradient_norm")
    yield from _known("gradient norm, median", norms, np.median)
    yield from _known("gradient norm, largest", norms, np.max)
    yield from _known("learning rate", [told["learning_rate"]], np.max)
    for name, signal in zip(_TIMES, TIMES, strict=True):
        yield from _known(name, recorded.values(signal), np.median)
    yield "steps that were not finite", told["nonfinite_steps"]
    for severity, count in told["findings"].items():
        yield f"findings, {severity}", count


def _known(
    name: str,
    values: list[Any] | NDArray[np.float32],
    of: Callable[[NDArray[np.float64]], Any],
) -> Iterator[tuple[str, float]]:
    """Yields a number of the values that are finite, if there is one."""
    if isinstance(values, list):
        values = [value for value in values if value is not None]
    numbers = np.asarray(values, np.float64)
    finite = numbers[np.isfinite(numbers)]
    if len(finite):
        yield name, float(of(finite))
    elif len(numbers):
        yield name, float("nan")


def _epochs(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """Yields what the last epoch says, and the lowest validation loss."""
    if not recorded.epochs:
        return
    last = recorded.epochs[-1]
    for name, value in last.validation.items():
        yield f"validation {name}", value
    losses = [e.validation.get("loss") for e in recorded.epochs]
    yield from _known("lowest validation loss", losses, np.min)
    for name, value in last.metrics.items():
        if name != "loss":
            yield name, value


def gradients(
    one: Recorded, other: Recorded, named: Callable[[str], str]
) -> list[Pair]:
    """Returns the median gradient norm of each variable of both, if finite.

    Over all of its own recorded steps.
    """
    a, b = dict(_gradients(one, str)), dict(_gradients(other, named))
    return [Pair(path, (a[path], b[path])) for path in a if path in b]


def _gradients(
    recorded: Recorded, named: Callable[[str], str]
) -> Iterator[tuple[str, float]]:
    subjects = dict.fromkeys(
        slot.subject
        for table in recorded.tables
        for slot in table.slots
        if slot.signal == "variable_gradient_norm"
    )
    for subject in subjects:
        values = recorded.values("variable_gradient_norm", subject)
        yield from _known(named(subject), values, np.median)


def findings(
    one: Sequence[Finding],
    other: Sequence[Finding],
    named: Callable[[str], str],
) -> list[Told]:
    """Returns rules and subjects that were found in either, each once."""
    steps: dict[tuple[str, str], list[int | None]] = {}
    for side, found in enumerate((one, other)):
        for each in found:
            subject = named(each.subject) if side else each.subject
            told = steps.setdefault((each.rule, subject), [None, None])
            if told[side] is None:
                told[side] = each.first_step
    return [
        Told(*key, (first, second)) for key, (first, second) in steps.items()
    ]


def curves(one: Recorded, other: Recorded, points: int) -> Curves:
    """Returns loss, gradient norm and learning rate over the common steps.

    Args:
        one: a run's readings.
        other: those of another one.
        points: steps, at most; the first and the last are among them.
    """
    common = np.intersect1d(one.steps(), other.steps())
    places = np.linspace(0, len(common) - 1, min(points, len(common)))
    steps = common[places.round().astype(np.int64)]
    series = {
        signal: (one.at(signal, steps), other.at(signal, steps))
        for signal in _SHOWN
    }
    return Curves(steps.tolist(), series)
