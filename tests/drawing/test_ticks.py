from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.drawing.ticks import decades, round_numbers

NUMBERS = st.floats(-1e30, 1e30, allow_subnormal=False)


@given(NUMBERS, NUMBERS)
def test_round_numbers_are_few_and_inside(low: float, high: float) -> None:
    """Whatever the ends."""
    low, high = min(low, high), max(low, high)
    found = round_numbers(low, high, 4)
    assert 0 < len(found) <= 5
    slack = 1e-9 * max(abs(low), abs(high))
    assert all(low - slack <= n <= high + slack for n in found)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (round_numbers(0, 1, 4), [0, 0.5, 1]),
        (round_numbers(0, 579, 6), [0, 100, 200, 300, 400, 500]),
        (round_numbers(3, 3, 4), [3]),
        (decades(0.001, 10, 5), [0.001, 0.01, 0.1, 1, 10]),
        (decades(1e-8, 1, 4), [1e-8, 1e-5, 1e-2]),
        (decades(2, 9, 4), []),
    ],
)
def test_ticks(found: list[float], expected: list[float]) -> None:
    """One, two or five times a power of ten; powers of ten alone."""
    assert found == pytest.approx(expected)
