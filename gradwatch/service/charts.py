"""Small charts, as paths for SVG: numbers in, text of digits and letters out.

What is not finite is never left out: where a line has no number it is broken,
and a mark stands there. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

__all__ = ["Chart", "Line", "Strip", "chart", "strips"]

_SHADES = 9
_POINTS = 60  # of a small chart
_LOG = 10.0  # ratio of the largest to the smallest, from which the axis is log


class Line(NamedTuple):
    """One series of a chart.

    Attributes:
        name: what it is.
        path: of the line.
        area: of what lies below it.
        last: the last value, NaN if it is not finite.
    """

    name: str
    path: str
    area: str
    last: float


class Chart(NamedTuple):
    """Some series over steps, in a box of `width` x `height`.

    Attributes:
        width: of the view box.
        height: of the view box.
        lines: the series.
        marks: a path of vertical lines where values are not finite.
        low: value at the bottom, `None` if none is finite.
        high: value at the top.
        log: whether the axis is logarithmic.
        first: step at the left.
        last: step at the right.
    """

    width: int
    height: int
    lines: Sequence[Line]
    marks: str
    low: float | None
    high: float | None
    log: bool
    first: int
    last: int


class Strip(NamedTuple):
    """One row of a heat strip: a cell a point, in a box of `cells` x 1.

    Attributes:
        name: whose values they are.
        cells: number of cells.
        paths: shade -> path of the cells that have it: `0` to `8` from small
            to large on a logarithmic scale, `zero`, and `bad` where the value
            is not finite.
        last: the last value.
    """

    name: str
    cells: int
    paths: Mapping[str, str]
    last: float


def chart(
    steps: Sequence[int],
    series: Mapping[str, Sequence[float]],
    *,
    bad: Sequence[int] = (),
    width: int = 160,
    height: int = 36,
    small: bool = False,
) -> Chart | None:
    """Returns a chart of some series, `None` if there is nothing to draw.

    Args:
        steps: N of them, ascending.
        series: name -> N values; NaN where there is none.
        bad: further steps at which a mark stands; after the last of `steps`
            they make the chart longer.
        width: of the box.
        height: of the box.
        small: whether at most 60 points of it are drawn.
    """
    if not len(steps) or not series:
        return None
    stride = -(-len(steps) // _POINTS) if small else 1
    shown = range(len(steps) - 1, -1, -stride)[::-1]
    drawn = [row[i] for row in series.values() for i in shown]
    values = [v for v in drawn if math.isfinite(v)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    log = low > 0 and high / low > _LOG
    end = max([steps[-1], *bad])
    span = max(end - steps[0], 1)
    xs = [width * (steps[i] - steps[0]) / span for i in shown]
    lines = []
    for name, row in series.items():
        ys = [_height(row[i], low, high, log) * height for i in shown]
        parts = list(_parts(xs, ys))
        path = "".join(_line(part) for part in parts)
        area = "".join(_area(part, height) for part in parts)
        lines.append(Line(name, path, area, row[-1]))
    at = sorted({s for s in bad if s >= steps[0]} | _holes(steps, series))
    marks = "".join(
        f"M{width * (s - steps[0]) / span:.1f} 0V{height}" for s in at
    )
    low_end, high_end = (low, high) if values else (None, None)
    return Chart(
        width, height, lines, marks, low_end, high_end, log, steps[0], end
    )


def _holes(
    steps: Sequence[int], series: Mapping[str, Sequence[float]]
) -> set[int]:
    """Returns the steps at which a value is not finite."""
    return {
        step
        for row in series.values()
        for step, value in zip(steps, row)
        if not math.isfinite(value)
    }


def _height(value: float, low: float, high: float, log: bool) -> float:
    """Returns where a value lies: 0 = top, 1 = bottom, NaN = nowhere."""
    if not math.isfinite(value):
        return math.nan
    if high == low:
        return 0.5
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return 0.04 + 0.92 * (high - value) / (high - low)


def _parts(
    xs: Sequence[float], ys: Sequence[float]
) -> Iterator[list[tuple[float, float]]]:
    """Yields points without a hole between them."""
    for finite, points in groupby(zip(xs, ys), lambda p: math.isfinite(p[1])):
        if finite:
            yield list(points)


def _line(points: Sequence[tuple[float, float]]) -> str:
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    # A point alone would not be seen.
    return f"M{text}" if len(points) > 1 else f"M{text}h.5"


def _area(points: Sequence[tuple[float, float]], height: int) -> str:
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f"M{points[0][0]:.1f} {height}L{text}V{height}z"


def strips(rows: Mapping[str, Sequence[float]]) -> list[Strip]:
    """Returns a heat strip whose rows share one logarithmic scale.

    Args:
        rows: name -> values that are not negative, N of each.
    """
    logs = sorted(
        math.log10(v)
        for row in rows.values()
        for v in row
        if math.isfinite(v) and v > 0
    )
    # Single extremes would leave one shade for all the rest.
    low = logs[len(logs) // 50] if logs else 0.0
    high = logs[-1 - len(logs) // 50] if logs else 1.0
    return [
        Strip(name, len(row), _cells(row, low, max(high, low + 1.0)), row[-1])
        for name, row in rows.items()
        if len(row)
    ]


def _cells(row: Sequence[float], low: float, high: float) -> dict[str, str]:
    paths: dict[str, str] = {}
    x = 0
    for shade, cells in groupby(_shade(v, low, high) for v in row):
        count = len(list(cells))
        paths[shade] = f"{paths.get(shade, '')}M{x} 0h{count}v1h-{count}z"
        x += count
    return paths


def _shade(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "bad"
    if value <= 0:
        return "zero"
    place = (math.log10(value) - low) / (high - low)
    return str(min(max(int(place * _SHADES), 0), _SHADES - 1))
