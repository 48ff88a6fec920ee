from __future__ import annotations

import math
import re

import pytest

from gradwatch.drawing.charts import chart

NAN, INF = math.nan, math.inf


def points(path: str) -> list[tuple[float, float]]:
    """Returns the corners of a path of straight lines."""
    return [
        (float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)
    ]


def test_a_line_goes_from_left_to_right() -> None:
    """Small values are low, large ones high, and steps keep their distance."""
    drawn = chart([0, 1, 4], {"loss": [3.0, 2.0, 1.0]}, width=100, height=50)
    assert drawn is not None
    (line,) = drawn.lines
    assert points(line.path) == [(0.0, 2.0), (25.0, 25.0), (100.0, 48.0)]
    assert (drawn.low, drawn.high, drawn.log) == (1.0, 3.0, False)
    assert (drawn.first, drawn.last, drawn.marks) == (0, 4, "")


def test_what_is_not_finite_is_a_hole_and_a_mark() -> None:
    """A line is broken there, and steps known to be bad have marks too."""
    values = [1.0, NAN, 1.0, INF, 2.0]
    drawn = chart(range(5), {"loss": values}, bad=[9], width=90)
    assert drawn is not None
    assert drawn.lines[0].path.count("M") == 3
    assert re.findall(r"M([\d.]+) 0V36", drawn.marks) == [
        "10.0",
        "30.0",
        "90.0",
    ]
    assert drawn.last == 9
    assert (drawn.low, drawn.high) == (1.0, 2.0)


def test_a_wide_range_has_a_log_axis() -> None:
    """Equal ratios are equal heights; zeros and minus signs forbid it."""
    drawn = chart(range(3), {"loss": [1.0, 100.0, 1e4]}, height=100)
    assert drawn is not None
    assert drawn.log
    heights = [y for _, y in points(drawn.lines[0].path)]
    assert heights == [96.0, 50.0, 4.0]
    plain = chart(range(3), {"loss": [0.0, 100.0, 1e4]})
    assert plain is not None
    assert not plain.log


@pytest.mark.parametrize("values", [[NAN], [INF, NAN], [2.0], [1.0, 1.0]])
def test_strange_series_are_drawn(values: list[float]) -> None:
    """A run that was never finite, one step, no change: no error."""
    drawn = chart(range(len(values)), {"loss": values})
    assert drawn is not None
    assert "nan" not in drawn.lines[0].path + drawn.marks
    assert ("M" in drawn.lines[0].path) == math.isfinite(values[0])


def test_nothing_is_no_chart() -> None:
    """Without steps or series there is nothing to draw."""
    assert chart([], {"loss": []}) is None
    assert chart([1], {}) is None


def test_a_small_chart_has_few_points_and_the_last_one() -> None:
    """The newest value is always there."""
    values = [float(i) for i in range(120)]
    drawn = chart(range(120), {"loss": values}, small=True)
    assert drawn is not None
    assert len(points(drawn.lines[0].path)) == 60
    assert points(drawn.lines[0].path)[-1][0] == 160.0
    assert drawn.lines[0].last == 119.0


def test_what_was_not_measured_is_no_hole() -> None:
    """The line goes on, without a mark; the newest known value is told."""
    drawn = chart(range(4), {"loss": [1.0, None, 2.0, None]}, width=30)
    assert drawn is not None
    (line,) = drawn.lines
    assert [x for x, _ in points(line.path)] == [0.0, 20.0]
    assert (drawn.marks, line.last) == ("", 2.0)


def test_a_band_reaches_from_the_lowest_to_the_highest() -> None:
    """The axis has room for it."""
    bands = {"loss": ([1.0, 2.0], [5.0, 4.0])}
    drawn = chart(
        [0, 1], {"loss": [2.0, 3.0]}, bands=bands, width=10, height=100
    )
    assert drawn is not None
    assert (drawn.low, drawn.high) == (1.0, 5.0)
    xs = [x for x, _ in points(drawn.lines[0].band)]
    ys = [y for _, y in points(drawn.lines[0].band)]
    assert xs == [0.0, 10.0, 10.0, 0.0]
    assert ys == [4.0, 27.0, 73.0, 96.0]


def test_charts_may_share_their_ends() -> None:
    """Steps keep their places, whatever a chart itself has."""
    drawn = chart([5, 6], {"loss": [1.0, 2.0]}, width=100, ends=(0, 10))
    assert drawn is not None
    assert [x for x, _ in points(drawn.lines[0].path)] == [50.0, 60.0]
    assert (drawn.first, drawn.last) == (0, 10)
