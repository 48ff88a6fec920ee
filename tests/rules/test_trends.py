"""What a noisy series proves: rates of false words, counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.rules.trends import falls, highest_mean, most_fall, slope

_RUNS = 400


def _series(seed: int, n: int, near: float) -> Any:
    """Noise of deviation 1 whose neighbours correlate by `near`."""
    fresh = np.random.default_rng(seed).normal(size=n)
    values = fresh.copy()
    for i in range(1, n):
        values[i] = near * values[i - 1] + (1 - near**2) ** 0.5 * fresh[i]
    return values


@pytest.mark.parametrize("near", [-0.4, 0.0, 0.3, 0.6])
@pytest.mark.parametrize("n", [4, 8, 20, 60])
@pytest.mark.parametrize("fall", [0.0, 0.05, 1.0])
def test_the_bound_is_one(n: int, near: float, fall: float) -> None:
    """A fall is above its bound in 2.5 % of runs, by any noise; 4 here."""
    trend = -fall * np.arange(n)
    above = sum(
        most_fall(_series(seed, n, near) + trend) < fall
        for seed in range(_RUNS)
    )
    assert above / _RUNS <= (0.04 if near < 0.5 or n > 50 else 0.09)


def test_the_bound_is_of_use() -> None:
    """Of twenty values it is two to four standard errors above."""
    bounds = [most_fall(_series(seed, 20, 0.0)) for seed in range(_RUNS)]
    error = 1 / np.sqrt(((np.arange(20) - 9.5) ** 2).sum())
    assert 2 * error < np.median(bounds) < 4 * error
    line: Any = 3.0 - 0.5 * np.arange(9)
    assert most_fall(line) == pytest.approx(0.5)


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_a_mean_is_below_its_bound(n: int) -> None:
    """In all but 2.5 % of runs."""
    means = [highest_mean(_series(seed, n, 0.0)) for seed in range(_RUNS)]
    assert sum(mean < 0 for mean in means) / _RUNS <= 0.04


def test_too_few_prove_nothing() -> None:
    """Nor do values that are not finite."""
    assert most_fall(np.zeros(3)) == np.inf
    assert most_fall(np.array([1, 2, np.nan, 3, 4])) == np.inf
    assert highest_mean(np.zeros(1)) == np.inf
    assert falls(np.zeros(3))
    assert slope(np.zeros(1)) == 0


def test_a_fall_is_seen() -> None:
    """By the order of values; its size is that of most pairs."""
    down: Any = 5.0 - np.arange(8)
    assert falls(down)
    assert not falls(-down)
    assert slope(down) == 1
