"""The line charts of a report: what was measured, over the steps.

Numbers to paths; how they look is said by the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gradwatch.drawing.charts import Chart, Values, chart, newest, place
from gradwatch.drawing.ticks import decades, round_numbers
from gradwatch.drawing.words import number
from gradwatch.records import Epoch
from gradwatch.report.axis import HEIGHT, WIDTH, Axis, Tick
from gradwatch.report.columns import Columns, Folded
from gradwatch.report.contents import Contents, Readings

__all__ = ["Plot", "overlaid", "plots"]

_LINES = 7  # beside the first, as many as there are colours
_TICKS = 4


class Plot(NamedTuple):
    """Lines over the steps.

    Attributes:
        title: what is shown.
        chart: the lines.
        ticks: numbers beside the value axis; percent from its top.
        note: a sentence below it.
        main: whether it is wide.
    """

    title: str
    chart: Chart
    ticks: list[Tick]
    note: str
    main: bool


def plots(contents: Contents, axis: Axis) -> list[Plot]:
    """Returns the line charts of a run; none of what was not measured."""
    readings = contents.readings
    bad = contents.snapshot["counters"]["last_nonfinite_step"]
    drawn = _Drawn(axis, [bad] if bad >= 0 else [])
    everyday = readings.everyday
    rates = everyday.of("optimizer_learning_rate") or everyday.of(
        "learning_rate"
    )
    norms = {
        name.replace("_", " "): folded
        for name in ("gradient_norm", "applied_gradient_norm")
        for folded in everyday.of(name).values()
    }
    found = (
        drawn.loss(readings),
        drawn.lines("Gradient norm", everyday, norms, main=True),
        *drawn.metrics(readings.epochs),
        drawn.lines("Learning rate", everyday, _named(rates, "learning rate")),
        drawn.lines(
            "Step time, s",
            everyday,
            _named(everyday.of("step_time"), "step time"),
        ),
    )
    return [plot for plot in found if plot is not None]


def overlaid(
    title: str, told: Mapping[str, tuple[Sequence[float], Folded]], axis: Axis
) -> Plot | None:
    """Returns the same of several runs in one chart.

    Args:
        title: what is shown.
        told: name of a run -> its steps, and the values at them.
        axis: the steps.
    """
    every = sorted({step for steps, _ in told.values() for step in steps})
    spread = {n: _spread(f, steps, every) for n, (steps, f) in told.items()}
    rows = {name: folded.means for name, folded in spread.items()}
    return _Drawn(axis, []).plot(title, every, rows, spread, main=True)


class _Drawn:
    """Draws charts on one axis.

    Args:
        axis: the steps.
        bad: steps that were not finite: all charts mark them.
    """

    def __init__(self, axis: Axis, bad: list[int]) -> None:
        self._axis = axis
        self._bad = bad

    def loss(self, readings: Readings) -> Plot | None:
        """Total, components, and validation at the ends of epochs."""
        everyday = readings.everyday
        parts = everyday.of("loss_component")
        if len(parts) < 2:  # it would be the same line
            parts = {}
        told = _named(everyday.of("loss"), "total loss")
        told |= _largest(
            {f"{name} (part)": part for name, part in parts.items()}
        )
        steps = everyday.steps
        ends = {
            float(epoch.step - 1): epoch.validation["loss"]
            for epoch in readings.epochs
            if "loss" in epoch.validation
        }
        if not ends:
            return self.lines("Loss", everyday, told, main=True)
        every = sorted({*steps, *ends})
        spread = {name: _spread(f, steps, every) for name, f in told.items()}
        rows = {name: folded.means for name, folded in spread.items()}
        rows["validation loss"] = [ends.get(step) for step in every]
        return self.plot("Loss", every, rows, spread, main=True)

    def lines(
        self,
        title: str,
        columns: Columns,
        told: Mapping[str, Folded],
        main: bool = False,
    ) -> Plot | None:
        """Some slots of the same columns."""
        rows = {name: folded.means for name, folded in told.items()}
        return self.plot(title, columns.steps, rows, told, main)

    def metrics(self, epochs: Sequence[Epoch]) -> Iterator[Plot | None]:
        """Each metric of the epochs, beside that of the validation."""
        steps = [epoch.step - 1 for epoch in epochs]
        names = dict.fromkeys(
            name for e in epochs for name in (*e.metrics, *e.validation)
        )
        for name in [n for n in names if n != "loss"][:_LINES]:
            both = {
                name: [e.metrics.get(name) for e in epochs],
                f"validation {name}": [e.validation.get(name) for e in epochs],
            }
            there = {
                name: row
                for name, row in both.items()
                if any(value is not None for value in row)
            }
            yield self.plot(f"Epochs: {name}", steps, there, {})

    def plot(
        self,
        title: str,
        steps: Sequence[float],
        rows: Mapping[str, Values],
        folded: Mapping[str, Folded],
        main: bool = False,
    ) -> Plot | None:
        """Rows at some steps, with bands where they are folded."""
        bands = {name: (f.lows, f.highs) for name, f in folded.items()}
        found = chart(
            steps,
            rows,
            bad=self._bad,
            width=WIDTH,
            height=HEIGHT,
            bands=bands if _wide(folded) else None,
            ends=self._axis.ends,
        )
        if found is None:
            return None
        note = "Line: mean; shade: lowest to highest." if _wide(folded) else ""
        return Plot(title, found, _ticks(found), note, main)


def _named(told: Mapping[str, Folded], name: str) -> dict[str, Folded]:
    """Names what belongs to the run."""
    return {subject or name: folded for subject, folded in told.items()}


def _largest(parts: Mapping[str, Folded]) -> dict[str, Folded]:
    """Those that are largest now; what is not finite is."""

    def size(name: str) -> float:
        value = newest(parts[name].means)
        known = value is not None and math.isfinite(value)
        return abs(value or 0.0) if known else math.inf

    shown = sorted(parts, key=size, reverse=True)[: _LINES - 1]
    return {name: parts[name] for name in shown}


def _spread(
    folded: Folded, steps: Sequence[float], every: Sequence[float]
) -> Folded:
    """Returns the values at other steps too, where they are not known."""
    rows = (dict(zip(steps, row)) for row in folded)
    return Folded(*([row.get(step) for step in every] for row in rows))


def _wide(folded: Mapping[str, Folded]) -> bool:
    """Whether columns hold more than one value."""
    return any(f.lows != f.highs for f in folded.values())


def _ticks(found: Chart) -> list[Tick]:
    """Numbers beside the value axis, from its top."""
    if found.low is None or found.high is None:
        return []
    low, high = found.low, found.high
    values = decades(low, high, _TICKS) if found.log else []
    if len(values) < 2:
        values = [low, high] if found.log else round_numbers(low, high, _TICKS)
    return [
        Tick(100 * place(value, low, high, found.log), number(value))
        for value in values
    ]
