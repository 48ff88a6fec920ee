"""Numbers to write beside an axis: round ones, few of them.

Standard library only.
"""

from __future__ import annotations

import math

__all__ = ["decades", "round_numbers"]


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Returns round numbers between two, one, two or five times a power of ten.

    Args:
        low: where the axis begins.
        high: where it ends.
        most: how many there may be.
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10):
        step = factor * power
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < most:
            break
    return [i * step for i in range(first, last + 1)]


def decades(low: float, high: float, most: int) -> list[float]:
    """Returns powers of ten between two positive numbers, evenly spaced."""
    first = math.ceil(math.log10(low) - 1e-9)
    last = math.floor(math.log10(high) + 1e-9)
    stride = max(-(-(last - first + 1) // most), 1)
    return [10.0**e for e in range(first, last + 1, stride)]
