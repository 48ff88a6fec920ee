"""Heat strips, as paths for SVG: a row of cells, their shades its values.

What is not finite, or exactly zero, has a shade of its own. Standard library
only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from gradwatch.drawing.charts import Values, newest

__all__ = ["Strip", "scale", "strips"]

_SHADES = 9


class Strip(NamedTuple):
    """One row of a heat strip: a cell a point, in a box of `cells` x 1.

    Attributes:
        name: whose values they are.
        cells: width of the box.
        paths: shade -> path of the cells that have it: `0` to `8` from small
            to large on a logarithmic scale, `zero`, and `bad` where the value
            is not finite.
        last: the last value that was measured.
    """

    name: str
    cells: int
    paths: Mapping[str, str]
    last: float | None


def scale(rows: Iterable[Values]) -> tuple[float, float]:
    """Returns the decimal logarithms between which shades change.

    They are the same for all rows; single extremes do not count, as they would
    leave one shade for all the rest.
    """
    logs = sorted(
        math.log10(v)
        for row in rows
        for v in row
        if v is not None and math.isfinite(v) and v > 0
    )
    low = logs[len(logs) // 50] if logs else 0.0
    high = logs[-1 - len(logs) // 50] if logs else 1.0
    return low, max(high, low + 1.0)


def strips(
    rows: Mapping[str, Values],
    edges: Sequence[int] | None = None,
    shares: bool = False,
) -> list[Strip]:
    """Returns a heat strip whose rows share one scale, a logarithmic one.

    Args:
        rows: name -> values that are not negative, N of each.
        edges: where cells begin, and where the last one ends, N + 1 of them;
            cells of the width 1.
        shares: whether values are shares: shades go linearly from 0 to 1.
    """
    low, high = (0.0, 1.0) if shares else scale(rows.values())

    def shade(value: float | None) -> str:
        return _shade(value, low, high, not shares)

    return [
        Strip(
            name,
            edges[-1] if edges else len(row),
            _cells(map(shade, row), edges or range(len(row) + 1)),
            newest(row),
        )
        for name, row in rows.items()
        if len(row)
    ]


def _cells(shades: Iterable[str], edges: Sequence[int]) -> dict[str, str]:
    paths: dict[str, str] = {}
    cells = zip(shades, pairwise(edges), strict=True)
    for shade, group in groupby(cells, lambda cell: cell[0]):
        places = [place for _, place in group]
        x, wide = places[0][0], places[-1][1] - places[0][0]
        if shade:
            path = f"M{x} 0h{wide}v1h-{wide}z"
            paths[shade] = paths.get(shade, "") + path
    return paths


def _shade(value: float | None, low: float, high: float, log: bool) -> str:
    if value is None:
        return ""
    if not math.isfinite(value):
        return "bad"
    if value <= 0:
        return "zero"
    place = ((math.log10(value) if log else value) - low) / (high - low)
    return str(min(max(int(place * _SHADES), 0), _SHADES - 1))
