"""Two runs side by side as tables of texts, for terminals and pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gradwatch.compare.comparison import Comparison
from gradwatch.compare.parting import Difference
from gradwatch.compare.setup import Pair
from gradwatch.compare.sides import Told
from gradwatch.compare.story import text

__all__ = ["VERDICTS", "Section", "sections"]

VERDICTS = {
    "same": "The same.",
    "rounding": "The same but for rounding.",
    "different": "Different.",
    "unknown": "Nothing can be compared.",
}

_SIDES = ("", "A", "B")
_POINTS = 12  # steps of the curves
_FACTOR = 1.01  # gradients that differ by less are left out

Row = Sequence[str]


class Section(NamedTuple):
    """A table with its title.

    Attributes:
        title: what is told.
        head: names of the columns.
        rows: a text for each column.
        otherwise: what to say where there are none; `""` = nothing.
        whole: whether all rows belong together.
    """

    title: str
    head: Row
    rows: list[Row]
    otherwise: str = ""
    whole: bool = False


def sections(told: Comparison) -> Iterator[Section]:
    """Yields set-up, parting, numbers, gradients, findings, curves."""
    found = told.readings
    yield Section("Set-up", _SIDES, _pairs(told.setup), "the same")
    parted = found.step >= 0
    title = f"Step {found.step if parted else found.unequal}"
    title += ", causes before effects" if parted else ", all by rounding"
    head = ("reading", "of", "A", "B", "differ by")
    yield Section(title, head, [_difference(d) for d in found.differences])
    yield Section("Side by side", _SIDES, _pairs(told.totals), whole=True)
    shown = [pair for pair in told.gradients if _apart(pair)]
    title = "Gradient norms of variables, medians"
    yield Section(title, _SIDES, _pairs(shown))
    sides = ("rule", "of", "A, from step", "B, from step")
    rows = [_finding(each) for each in told.findings]
    yield Section("Findings", sides, rows, "none")
    if found.verdict != "same":
        yield _curves(told)


def _pairs(pairs: Iterable[Pair]) -> list[Row]:
    return [(pair.name, *map(text, pair.values)) for pair in pairs]


def _difference(each: Difference) -> Row:
    a, b = map(text, each.values)
    if a == b:  # not to four digits
        a, b = (f"{value:.9g}" for value in each.values)
    by = f"{each.relative:.2g}" if math.isfinite(each.relative) else "-"
    return each.signal, each.subject, a, b, by


def _apart(pair: Pair) -> bool:
    a, b = pair.values
    return a != b and not max(a, b) < _FACTOR * min(a, b)


def _finding(each: Told) -> Row:
    return each.rule, each.subject, *map(text, each.steps)


def _curves(told: Comparison) -> Section:
    """Returns what differs over the steps, at some of them."""
    series = {
        signal.replace("_", " "): values
        for signal, values in told.curves.series.items()
        if values[0] != values[1]
    }
    steps = told.curves.steps
    places = np.linspace(0, len(steps) - 1, min(_POINTS, len(steps)))
    rows: list[Row] = [
        [str(steps[i]), *(text(side[i]) for v in series.values() for side in v)]
        for i in places.round().astype(int).tolist()
    ]
    head = ("step", *(f"{name} {side}" for name in series for side in "AB"))
    return Section("Over the steps", head, rows, whole=True)
