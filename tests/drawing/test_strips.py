from __future__ import annotations

import math

from gradwatch.drawing.strips import strips

NAN, INF = math.nan, math.inf


def test_strips_share_a_scale() -> None:
    """Shades follow the logarithm; zero and not finite have their own."""
    rows = {"a": [1e-4, 1e-4, 1.0, 0.0], "b": [1e4, NAN, INF, 1.0]}
    a, b = strips(rows)
    assert a.paths == {
        "0": "M0 0h2v1h-2z",
        "4": "M2 0h1v1h-1z",
        "zero": "M3 0h1v1h-1z",
    }
    assert b.paths == {
        "8": "M0 0h1v1h-1z",
        "bad": "M1 0h2v1h-2z",
        "4": "M3 0h1v1h-1z",
    }
    assert (a.cells, a.last, b.last) == (4, 0.0, 1.0)


def test_cells_may_have_widths_and_be_empty() -> None:
    """What was not measured has no cell: it is no zero."""
    (row,) = strips({"a": [None, 1.0, 1.0, NAN]}, [0, 5, 7, 10, 20])
    assert row.paths == {"0": "M5 0h5v1h-5z", "bad": "M10 0h10v1h-10z"}
    assert row.cells == 20


def test_shares_have_a_linear_scale() -> None:
    """From none to all."""
    (row,) = strips({"a": [0.0, 0.05, 0.5, 1.0]}, shares=True)
    assert list(row.paths) == ["zero", "0", "4", "8"]
