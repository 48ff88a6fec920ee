"""Line charts, as paths for SVG: numbers in, text of digits and letters out.

What is not finite is never left out: where a line has no number it is broken,
and a mark stands there. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

__all__ = ["Chart", "Line", "Values", "chart", "newest", "place", "uprights"]

Values = Sequence[float | None]
"""NaN and the infinities are data; `None` = not measured."""

_POINTS = 60  # of a small chart
_LOG = 10.0  # ratio of the largest to the smallest, from which the axis is log


class Line(NamedTuple):
    """One series of a chart.

    Attributes:
        name: what it is.
        path: of the line.
        area: of what lies below it.
        last: the last value that was measured.
        band: path of the area between its lowest and highest values, `""`
            where these are not known.
    """

    name: str
    path: str
    area: str
    last: float | None
    band: str = ""


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


class _Box(NamedTuple):
    """Where values lie: in a box of `width` x `height`."""

    width: int
    height: int
    low: float
    high: float
    log: bool
    first: float
    span: float

    def x(self, step: float) -> float:
        return self.width * (step - self.first) / self.span

    def y(self, value: float) -> float:
        share = place(value, self.low, self.high, self.log)
        return share * self.height


def chart(
    steps: Sequence[float],
    series: Mapping[str, Values],
    *,
    bad: Sequence[int] = (),
    width: int = 160,
    height: int = 36,
    small: bool = False,
    bands: Mapping[str, tuple[Values, Values]] | None = None,
    ends: tuple[int, int] | None = None,
) -> Chart | None:
    """Returns a chart of some series, `None` if there is nothing to draw.

    Args:
        steps: N of them, ascending.
        series: name -> N values; NaN where one is not finite.
        bad: further steps at which a mark stands; after the last of `steps`
            they make the chart longer.
        width: of the box.
        height: of the box.
        small: whether at most 60 points of it are drawn.
        bands: name of a series -> its N lowest and N highest values, where a
            point stands for several.
        ends: steps at the left and at the right; those that there are.
    """
    if not len(steps) or not series:
        return None
    stride = -(-len(steps) // _POINTS) if small else 1
    shown = range(len(steps) - 1, -1, -stride)[::-1]
    bands = bands or {}
    every = [
        *series.values(),
        *(row for pair in bands.values() for row in pair),
    ]
    values = [v for row in every for v in _finite(row[i] for i in shown)]
    ends = ends or (int(steps[0]), int(max([steps[-1], *bad])))
    box = _box(width, height, values, ends)
    at = [steps[i] for i in shown]
    lines = []
    for name, row in series.items():
        path, area = _drawn(box, at, [row[i] for i in shown])
        band = _band(box, steps, *bands[name]) if name in bands else ""
        lines.append(Line(name, path, area, newest(row), band))
    holes = {s for s in bad if s >= ends[0]} | _holes(steps, series)
    marks = uprights(sorted(holes), width, height, ends)
    told = Chart(width, height, lines, marks, *box[2:5], *ends)
    return told if values else told._replace(low=None, high=None)


def newest(row: Values) -> float | None:
    """Returns the last value that was measured, `None` if none was."""
    return next((value for value in reversed(row) if value is not None), None)


def uprights(
    steps: Sequence[float], width: int, height: int, ends: tuple[int, int]
) -> str:
    """Returns a path of vertical lines at some steps, as high as the box."""
    span = max(ends[1] - ends[0], 1)
    return "".join(
        f"M{width * (step - ends[0]) / span:.1f} 0V{height}" for step in steps
    )


def place(value: float, low: float, high: float, log: bool) -> float:
    """Returns where a value lies: 0 = top, 1 = bottom, NaN = nowhere."""
    if not math.isfinite(value):
        return math.nan
    if high == low:
        return 0.5
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return 0.04 + 0.92 * (high - value) / (high - low)


def _box(
    width: int, height: int, values: Sequence[float], ends: tuple[int, int]
) -> _Box:
    """Returns a box with room for values, and for the steps between ends."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    log = low > 0 and high / low > _LOG
    span = max(ends[1] - ends[0], 1)
    return _Box(width, height, low, high, log, ends[0], span)


def _finite(values: Iterator[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _holes(steps: Sequence[float], series: Mapping[str, Values]) -> set[float]:
    """Returns the steps at which a value is not finite."""
    return {
        step
        for row in series.values()
        for step, value in zip(steps, row)
        if value is not None and not math.isfinite(value)
    }


def _drawn(box: _Box, steps: Sequence[float], row: Values) -> tuple[str, str]:
    """Returns the paths of a line, and of what lies below it."""
    points = [
        (box.x(step), box.y(value))
        for step, value in zip(steps, row)
        if value is not None
    ]
    parts = list(_parts(points))
    areas = (_area(part, box.height) for part in parts)
    return "".join(map(_line, parts)), "".join(areas)


def _band(
    box: _Box, steps: Sequence[float], lows: Values, highs: Values
) -> str:
    """Returns the path of the area between two series without a hole."""
    told = [
        (box.x(step), box.y(low), box.y(high))
        for step, low, high in zip(steps, lows, highs)
        if low is not None and high is not None
    ]
    told = [each for each in told if math.isfinite(each[1] + each[2])]
    if not told:
        return ""
    there = [f"{x:.1f} {high:.1f}" for x, _, high in told]
    back = [f"{x:.1f} {low:.1f}" for x, low, _ in reversed(told)]
    return f"M{'L'.join([*there, *back])}z"


def _parts(
    points: Sequence[tuple[float, float]],
) -> Iterator[list[tuple[float, float]]]:
    """Yields points without a hole between them."""
    for finite, part in groupby(points, lambda p: math.isfinite(p[1])):
        if finite:
            yield list(part)


def _line(points: Sequence[tuple[float, float]]) -> str:
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    # A point alone would not be seen.
    return f"M{text}" if len(points) > 1 else f"M{text}h.5"


def _area(points: Sequence[tuple[float, float]], height: int) -> str:
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f"M{points[0][0]:.1f} {height}L{text}V{height}z"
