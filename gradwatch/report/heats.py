"""The heat maps of a report: all variables, or layers, over the steps.

Numbers to paths; how they look is said by the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gradwatch.drawing.charts import Values
from gradwatch.drawing.strips import Strip, scale, strips
from gradwatch.report.axis import Axis
from gradwatch.report.columns import Columns, Folded
from gradwatch.report.contents import Contents

__all__ = ["Heat", "heats"]

_NORM = "Before clipping, on a log scale."
_RATIO = (
    "Norm of an update over that of the weights, from X-rays, on a log scale; "
    "about 0.001 is usual."
)
_SHARES = (
    (
        "Silent units of each layer",
        "layer_silent_ratio",
        "Share of units that are 0 for all samples, from X-rays.",
    ),
    (
        "Saturation of each layer",
        "layer_bound_ratio",
        "Share of outputs within 1 % of a bound, from X-rays.",
    ),
)


class Heat(NamedTuple):
    """A row of cells for each variable or layer, over the steps.

    Attributes:
        title: what is shown.
        strips: the rows.
        low: what the first shade stands for.
        high: what the last one stands for.
        note: a sentence below it.
    """

    title: str
    strips: list[Strip]
    low: str
    high: str
    note: str


def heats(contents: Contents, axis: Axis) -> list[Heat]:
    """Returns the heat maps of a run; none of what was not measured."""
    everyday, xrays = contents.readings.everyday, contents.readings.xrays
    norms = _means(everyday.of("variable_gradient_norm"))
    found = [
        _heat("Gradient norm of each variable", everyday, norms, axis, _NORM),
        _heat(
            "Update-to-weight ratio of each variable",
            xrays,
            _ratios(xrays),
            axis,
            _RATIO,
        ),
    ]
    for title, signal, note in _SHARES:
        shares = _means(xrays.of(signal))
        found.append(_heat(title, xrays, shares, axis, note, shares=True))
    return [heat for heat in found if heat is not None]


def _ratios(xrays: Columns) -> dict[str, Values]:
    """The norm of each variable's update over that of its weights."""
    updates = xrays.of("variable_update_norm")
    weights = xrays.of("variable_weight_norm")
    return {
        path: [_ratio(u, w) for u, w in zip(update.means, weights[path].means)]
        for path, update in updates.items()
        if path in weights
    }


def _heat(
    title: str,
    columns: Columns,
    rows: Mapping[str, Values],
    axis: Axis,
    note: str,
    shares: bool = False,
) -> Heat | None:
    if not rows:
        return None
    low, high = (0.0, 1.0) if shares else scale(rows.values())
    drawn = strips(rows, axis.edges(columns.steps), shares=shares)
    ends = [f"{end:.0%}" if shares else f"{10**end:.1g}" for end in (low, high)]
    return Heat(title, drawn, ends[0], ends[1], note)


def _means(told: Mapping[str, Folded]) -> dict[str, Values]:
    return {subject: folded.means for subject, folded in told.items()}


def _ratio(update: float | None, weight: float | None) -> float | None:
    if update is None or not weight:  # nothing to compare with
        return None
    return update / weight
