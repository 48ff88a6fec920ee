"""Whether a derivative is that of the value, from differences of the value.

Along a line through a point, the value is known at steps of several sizes to
both sides. No size fits all: a large one reaches over a kink nearby or a strong
curvature, a small one drowns in rounding. So a derivative is called right if
the differences of any size agree with it, and wrong only if those of two
neighbouring sizes agree with each other, on both sides of the point, ten times
better than with it, and smaller sizes do not come closer to it. Where the two
sides differ for good there is a kink, and each value between them is a
derivative (a sub-gradient). Anything else is not judged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "KINK",
    "OUTSIDE",
    "RIGHT",
    "STEPS",
    "STEPS_SINGLE",
    "UNJUDGED",
    "WRONG",
    "Judged",
    "Stencil",
    "judge",
]

RIGHT, KINK, UNJUDGED, OUTSIDE, WRONG = range(5)
"""Agrees; a kink, and inside of its slopes; not judged; a kink, and outside of
its slopes; wrong."""

STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Of float64: a stencil of 1e-5 sees kinks that are none, and misses some; one
of 1e-7 settles both."""

STEPS_SINGLE = (1e-1, 3e-2, 1e-2, 3e-3)
"""Of float32, whose rounding is 1e-7 of the value."""

_RELATIVE = {False: 1e-4, True: 2e-2}
_EPSILON = {False: 2.3e-16, True: 1.2e-7}
_ROUNDING = 16.0
"""Rounding error of a value, in units of its last place."""

_CLEAR = 0.1
_FLOOR = {False: 1e-6, True: 1e-2}
"""Of the largest derivative at a point: below that is nothing."""


class Judged(NamedTuple):
    """Verdicts on derivatives along lines.

    Attributes:
        verdicts: int `[Q]`, see `RIGHT`.
        slopes: float64 `[Q]`, what the differences say; NaN where they say
            nothing.
        flat: bool `[Q]`, whether the value is constant around the point.
    """

    verdicts: Any
    slopes: Any
    flat: Any


class Stencil(NamedTuple):
    """Values along lines; `K` steps, largest first, `Q` lines.

    Attributes:
        middle: float64 `[Q]`, values at the points.
        above: float64 `[K, Q]`, values a step further.
        below: float64 `[K, Q]`, values a step back.
        low: float64 `[K, Q]`, lower bound of the slopes at a kink: of each
            result of its own, as several may have one.
        high: float64 `[K, Q]`, upper bound.
        size: float64 `[Q]`, sums of the absolute values that a value is made
            of, for its rounding error.
    """

    middle: Any
    above: Any
    below: Any
    low: Any
    high: Any
    size: Any


def judge(
    stencil: Stencil,
    steps: Any,
    claimed: Any,
    *,
    reference: Any,
    straight: Any,
    single: bool,
) -> Judged:
    """Judges derivatives along lines.

    Args:
        stencil: values along the lines.
        steps: float64 `[K]`.
        claimed: float64 `[Q]`, derivatives along the lines.
        reference: float64 `[Q]`, the largest derivative at the same point.
        straight: bool `[Q]`, whether a single number changes along a line; of
            several with a kink each, nothing follows for their sum.
        single: whether it was computed in float32.
    """
    middle, above, below, low, high, size = stencil
    steps = np.asarray(steps)[:, None]
    with np.errstate(all="ignore"):
        right = (above - middle) / steps
        left = (middle - below) / steps
        center = (right + left) / 2
        noise = _ROUNDING * _EPSILON[single] * size / steps
        largest = np.maximum(np.abs(claimed), np.abs(center))
        little = noise + _FLOOR[single] * reference
        allowed = _RELATIVE[single] * largest + little
        off = np.abs(center - claimed)
        usable = np.isfinite(right) & np.isfinite(left)
        usable &= noise <= 0.1 * np.maximum(largest, reference)
        agrees = (usable & (off <= allowed)).any(0)
        sure = _sure(center, right, left, off, usable, little)
        sure &= off > allowed
        inside = (low - allowed <= claimed) & (claimed <= high + allowed)
        away = np.maximum(low - claimed, claimed - high)
        kinked = _kinked(right, left, inside, away, usable, little)
    flat = ((above == middle) & (below == middle))[1:].all(0)
    verdicts = np.full(len(middle), UNJUDGED)
    verdicts[straight & (kinked == OUTSIDE)] = OUTSIDE
    verdicts[kinked == KINK] = KINK
    verdicts[sure.any(0)] = WRONG
    verdicts[agrees | (flat & (claimed == 0))] = RIGHT
    verdicts[~np.isfinite(claimed)] = UNJUDGED
    best = np.where(sure.any(0), sure.argmax(0), _steadiest(center, usable))
    slopes = np.take_along_axis(center, best[None], 0)[0]
    return Judged(verdicts, slopes, flat)


def _sure(
    center: Any, right: Any, left: Any, off: Any, usable: Any, little: Any
) -> Any:
    """Bool `[K, Q]`: where differences agree with each other, not with it."""
    smooth = _alike(right, left, off, little) & usable
    steady = _alike(center[1:], center[:-1], off[1:], little[1:])
    found = steady & smooth[1:] & smooth[:-1]
    found &= _stays(off, usable)[1:]
    return np.concatenate([np.zeros_like(found[:1]), found])


def _kinked(
    right: Any, left: Any, inside: Any, away: Any, usable: Any, little: Any
) -> Any:
    """`KINK`, `OUTSIDE` or `UNJUDGED`, by the slopes of the two sides."""
    steady = _alike(right[1:], right[:-1], away[1:], little[1:])
    steady &= _alike(left[1:], left[:-1], away[1:], little[1:])
    steady &= usable[1:] & usable[:-1] & ~inside[1:] & ~inside[:-1]
    steady &= _stays(away, usable)[1:]
    found = np.where(steady.any(0), OUTSIDE, UNJUDGED)
    steepest = np.maximum(np.abs(right), np.abs(left))
    jumps = steepest[1:] > 5 * steepest[:-1] + little[1:]
    inside[1:] &= ~jumps
    last = np.where(usable, np.arange(len(usable))[:, None], -1).max(0)
    known = np.take_along_axis(inside, np.maximum(last, 0)[None], 0)[0]
    return np.where((last >= 0) & known, KINK, found)


def _alike(one: Any, other: Any, off: Any, little: Any) -> Any:
    """Whether two slopes differ by little, and by less than from the claim."""
    apart = np.abs(one - other)
    size = np.maximum(np.abs(one), np.abs(other))
    return (apart <= _CLEAR * off) & (apart <= _CLEAR * size + little)


def _stays(off: Any, usable: Any) -> Any:
    """Whether no smaller step comes closer to the claim."""
    known = np.where(usable, off, np.inf)
    finer = np.minimum.accumulate(known[::-1], axis=0)[::-1]
    return finer >= 0.5 * off


def _steadiest(center: Any, usable: Any) -> Any:
    """Int `[Q]`: the step whose difference changes least to the next one."""
    change = np.abs(np.diff(center, axis=0))
    change = np.where(usable[1:] & usable[:-1], change, np.inf)
    return np.where(np.isnan(change), np.inf, change).argmin(0) + 1
