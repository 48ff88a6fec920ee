"""Two runs side by side as one HTML file, with two lines in each chart.

As reports are drawn. Needs Jinja2, the extra `[report]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradwatch.compare.comparison import Comparison
from gradwatch.compare.sections import VERDICTS, sections
from gradwatch.compare.story import story
from gradwatch.report.axis import Axis
from gradwatch.report.columns import Folded
from gradwatch.report.contents import Readings, read_contents
from gradwatch.report.page import rendered
from gradwatch.report.plots import Plot, overlaid

__all__ = ["page"]

_OWN = Path(__file__).parent / "templates"
_ROWS = 100  # of a table, at most
_CHARTS = {
    "Loss": "loss",
    "Gradient norm": "gradient_norm",
    "Learning rate": "learning_rate",
    "Step time, s": "step_time",
}


def page(told: Comparison, one: Path, other: Path, made: float) -> str:
    """Returns the HTML of a comparison.

    Args:
        told: what has been compared.
        one: the first run's directory.
        other: the other one's.
        made: Unix time.

    Raises:
        GradWatchError: see `read_contents`.
        OSError: see `read_contents`.
    """
    contents = read_contents(one), read_contents(other)
    a, b = (each.readings for each in contents)
    last = max(each.snapshot["steps"] for each in contents) - 1
    axis = Axis(min(a.first, b.first), last)
    found = told.readings
    parted = found.step >= 0
    step = found.step if parted else found.unequal
    severity = "critical" if parted else "info"
    what = "where they part" if parted else "from where they differ by rounding"
    return rendered(
        "compare.html",
        _OWN,
        runs=told.runs,
        verdict=VERDICTS[found.verdict].rstrip("."),
        mood={"different": "bad", "unknown": "warn"}.get(found.verdict, "good"),
        story=story(told),
        axis=axis,
        events={severity: axis.uprights([step] if step >= 0 else [])},
        parted=what if step >= 0 else "",
        plots=list(_plots(a, b, axis)),
        sections=[s for s in sections(told) if s.title != "Over the steps"],
        most=_ROWS,
        made=made,
    )


def _plots(a: Readings, b: Readings, axis: Axis) -> Iterator[Plot]:
    """Yields charts of what both have measured, and of validation."""
    sides = {"A": a, "B": b}
    for title, signal in _CHARTS.items():
        told = {
            side: (readings.everyday.steps, folded)
            for side, readings in sides.items()
            for folded in readings.everyday.of(signal).values()
        }
        if plot := overlaid(title, told, axis):
            yield plot
    told = {side: _validation(readings) for side, readings in sides.items()}
    if plot := overlaid("Validation loss", told, axis):
        yield plot


def _validation(readings: Readings) -> tuple[list[float], Folded]:
    ends = [e for e in readings.epochs if "loss" in e.validation]
    losses: list[float | None] = [e.validation["loss"] for e in ends]
    return [float(e.step - 1) for e in ends], Folded(losses, losses, losses)
