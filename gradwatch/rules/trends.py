"""Trends: what a short, noisy series proves about its own course. numpy only.

Evidence that a loss falls and evidence that it does not are two things: where
noise is large there is neither. `falls` asks for the first, `most_fall` bounds
what may be hidden by noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["falls", "gathers_pace", "highest_mean", "most_fall", "slope"]

_Z = 1.96  # 97.5 % of a normal distribution lie below
_SURE = 2.576  # 99.5 % do


def falls(values: NDArray[np.float64]) -> bool:
    """Kendall's test, one-sided at 5 %; true if there is too little to say.

    Args:
        values: float `[n]`, in order.
    """
    n = len(values)
    if n < 4 or not np.isfinite(values).all():
        return True
    signs = np.sign(values[None, :] - values[:, None])
    score = float(signs[np.triu_indices(n)].sum())
    return score / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) < -1.64


def slope(values: NDArray[np.float64]) -> float:
    """Median fall from one value to the next, over all pairs (Theil and Sen).

    Args:
        values: float `[n]`, in order.
    """
    n = len(values)
    if n < 2:
        return 0.0
    i, j = np.triu_indices(n, 1)
    return float(np.median((values[i] - values[j]) / (j - i)))


def most_fall(values: NDArray[np.float64]) -> float:
    """Upper bound, at 97.5 %, of the fall from one value to the next.

    Least squares; the error of the slope and its degrees of freedom count as
    many values as are worth one that is independent, n (1 - r) / (1 + r) with
    the correlation r of neighbours (Santer et al. 2000, J. Geophys. Res. 105),
    of which the bias -(1 + 4 r) / n of residuals is taken away (Marriott and
    Pope 1954).

    Args:
        values: float `[n]`, in order.

    Returns:
        The bound; Inf if there are too few values.
    """
    n = len(values)
    if n < 4 or not np.isfinite(values).all():
        return math.inf
    places = np.arange(n) - (n - 1) / 2
    scatter = float((places**2).sum())
    fall = -float((places * values).sum()) / scatter
    rest = values - values.mean() + fall * places
    squares = float((rest**2).sum())
    if squares <= 1e-24 * float((values**2).sum()):
        return fall
    near = float((rest[1:] * rest[:-1]).sum()) / squares
    near = min(max(near + (1 + 4 * near) / n, 0.0), 0.99)
    worth = n * (1 - near) / (1 + near)
    if worth <= 3:
        return math.inf
    error = math.sqrt(squares / (worth - 2) / scatter)
    return fall + _quantile(worth - 2, _Z) * error


def gathers_pace(values: NDArray[np.float64]) -> bool:
    """Whether a series falls faster and faster, from its first to its last.

    The falls between the means of its four quarters grow by a fifth each, and
    the last is above the first by more than three standard errors. Their noise
    is that of second differences, whose trend is nothing.

    Args:
        values: float `[n]`, in order.
    """
    n = len(values)
    if n < 8 or not np.isfinite(values).all():
        return False
    means = np.array([part.mean() for part in np.array_split(values, 4)])
    first, middle, last = means[:-1] - means[1:]
    noise = float(np.std(np.diff(values, 2))) / math.sqrt(6)
    error = 2 * noise / math.sqrt(n / 4)  # of four means
    grows = 0 < 1.2 * first < middle and 1.2 * middle < last
    return bool(grows and last - first > 3 * error)


def highest_mean(values: NDArray[np.float64]) -> float:
    """Upper bound, at 99.5 %, of the mean that values scatter around.

    Args:
        values: float `[n]`, independent of each other.

    Returns:
        The bound; Inf if there are fewer than two.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return math.inf
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) + _quantile(n - 1, _SURE) * error


def _quantile(v: float, z: float) -> float:
    """Quantile of Student's t, by Cornish and Fisher (1937).

    Args:
        v: degrees of freedom; below two, what comes is far too high.
        z: the same quantile of a normal distribution.
    """
    if v < 2:
        return _quantile(2.0, z) * (2 / v) ** 2
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
