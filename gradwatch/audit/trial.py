"""How good the usual best prediction is, and whether another is better.

Others are drawn, and reached by gradient descent from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.ideals import Ideal
from gradwatch.audit.single import Single

__all__ = ["Trial", "elsewhere", "trial"]

_TARGETS = 12
_DRAWS = 16
_STEPS = 24

_CLEAR = 0.05
"""Part of what another example's prediction costs, that is clearly lower. A
penalty of 0.1 times the square lowers it by 0.4 %, one of 0.3 times by 3 %."""

_PERFECT = 1e-4
"""The same, where all targets have the same least value elsewhere."""

_CERTAIN = 0.25
"""What a certain answer may cost more than the best one, as a part of what the
opposite costs: with label smoothing of 0.1 it is 0.05."""


class Trial(NamedTuple):
    """What one kind of best prediction costs: `K` targets.

    Attributes:
        ideal: what was tried.
        targets: `[K, ...]`.
        best: `[K, ...]`, the best predictions.
        cost: float64 `[K]`, their loss.
        lower: `[K, ...]`, the best that were found.
        least: float64 `[K]`, their loss.
        worst: bool `[K]`, where that is clearly lower.
        scale: what the prediction for another target costs more, median.
    """

    ideal: Ideal
    targets: Any
    best: Any
    cost: Any
    lower: Any
    least: Any
    worst: Any
    scale: float

    @property
    def share(self) -> float:
        """Share of the targets for which it is not the best."""
        return float(np.mean(self.worst))

    @property
    def zero(self) -> bool:
        """Whether it costs nothing."""
        cost = self.cost[np.isfinite(self.cost)]
        return bool((np.abs(cost) <= _PERFECT * self.scale).all())

    @property
    def right(self) -> float:
        """Share of the targets for which nothing is better at all."""
        with np.errstate(all="ignore"):
            drop = np.nan_to_num(self.cost - self.least, nan=np.inf)
        usual = np.median(drop[self.worst]) if self.worst.any() else 0.0
        return float(np.mean(drop <= 1e-3 * usual))


def elsewhere(single: Single, tried: Trial) -> bool:
    """Whether all targets can be met perfectly, but none where it is met.

    A compromise with a penalty is not perfect. What is at its least from some
    prediction on (a margin) is not met at a place.
    """
    stated = tried.ideal.targets.kind in ("real", "range", "given")
    with np.errstate(all="ignore"):
        drop = tried.cost - tried.least
    if tried.ideal.hard or not stated or not np.isfinite(drop).all():
        return False
    if not (drop > _PERFECT * tried.scale).all():
        return False
    if np.ptp(tried.least) > 0.1 * np.median(drop):
        return False
    around = [
        single.values(tried.targets, tried.ideal.inside(factor * tried.lower))
        for factor in (0.5, 1.5)
    ]
    up = np.array(around) - tried.least
    return bool((up > 1e-6 * tried.scale).all(0).mean() > 0.5)


def trial(random: np.random.Generator, single: Single, ideal: Ideal) -> Trial:
    """Returns how good the best predictions are, for random targets."""
    targets = ideal.targets.sample(random, _TARGETS)
    targets = targets[:, 0] if ideal.targets.shape else targets
    several = [ideal.inside(b) for b in ideal.best(targets)]
    nudged = ideal.inside(
        several[0] + 1e-4 * random.normal(size=several[0].shape)
    )
    cost, best = _least(single, targets, several)
    bad = np.isnan(cost) | np.isposinf(cost)
    if bad.any():
        again, near = _least(single, targets, [nudged])
        cost, best = np.where(bad, again, cost), _where(bad, near, best)
    drawn = list(_rivals(random, ideal, best))
    least, lower = _least(single, targets, drawn)
    # What another example's prediction costs is the measure.
    usual = single.values(targets, np.roll(best, 1, axis=0))
    least, lower = _descended(single, ideal, targets, best, least, lower)
    with np.errstate(all="ignore"):
        scale = _scale(usual - np.fmin(least, cost))
    worse = _clearly(cost, np.fmin(least, cost), scale)
    if ideal.hard and ideal.low < 0:
        worse |= _uncertain(single, ideal, targets, cost)
    elif ideal.hard and _cornered(ideal, several[0], best, cost, scale):
        worse[:] = True
    return Trial(ideal, targets, best, cost, lower, least, worse, scale)


def _cornered(
    ideal: Ideal, certain: Any, best: Any, cost: Any, scale: float
) -> bool:
    """Whether it is least at a bound only as predictions end there.

    Then it costs something, and with each target something else.
    """
    if not np.isclose(certain, best).all() or not np.isfinite(cost).all():
        return False
    # A single target may be odd: a mask with nothing in it.
    low, middle, high = np.quantile(cost, (0.2, 0.5, 0.8))
    if abs(middle) <= _CLEAR * scale:
        return False
    return ideal.simplex or bool(high - low > _CLEAR * scale)


def _uncertain(single: Single, ideal: Ideal, targets: Any, cost: Any) -> Any:
    """Bool `[K]`: where a certain answer is hardly better than its opposite."""
    signs = ideal.targets.kind == "signs"
    best = [ideal.inside(b) for b in ideal.best(targets)]
    if ideal.targets.whole:
        other = [ideal.inside(-b) for b in best]
    else:
        opposite = -targets if signs else 1 - targets
        other = [ideal.inside(b) for b in ideal.best(opposite)]
    half = 0 if signs or len(best) < 6 else len(best) // 2
    certain = [single.values(targets, best[k]) for k in {0, half}]
    wrong = [single.values(targets, other[k]) for k in {0, half}]
    with np.errstate(all="ignore"):
        more = np.fmin.reduce(certain) - cost
        most = np.fmax.reduce(wrong) - cost
        return more > _CERTAIN * most


def _rivals(
    random: np.random.Generator, ideal: Ideal, best: Any
) -> Iterator[Any]:
    """Yields other predictions `[K, ...]`."""
    width = np.median(np.abs(best - np.roll(best, 1, axis=0)))
    for size in (0.03, 0.1, 0.3, 1.0):
        yield ideal.inside(best + size * width * random.normal(size=best.shape))
    for k in range(1, min(4, len(best))):
        yield np.roll(best, k, axis=0)
    if ideal.simplex:
        for k in range(1, best.shape[-1]):
            yield np.roll(best, k, axis=-1)
    else:
        yield ideal.inside(-best)
        finite = np.isfinite(ideal.low + ideal.high)
        yield ideal.inside(ideal.low + ideal.high - best if finite else best)
        yield ideal.inside(np.full_like(best, ideal.low))
        yield ideal.inside(np.full_like(best, ideal.high))
    for _ in range(_DRAWS):
        yield ideal.drawn(random, best.shape)


def _least(single: Single, targets: Any, several: list[Any]) -> tuple[Any, Any]:
    """The least loss `[K]` of several predictions, and these."""
    every = single.values(
        np.concatenate([targets] * len(several)), np.concatenate(several)
    ).reshape(len(several), -1)
    known = np.where(np.isnan(every), np.inf, every)
    chosen = known.argmin(0)
    k = np.arange(len(targets))
    return every[chosen, k], np.stack(several)[chosen, k]


def _descended(
    single: Single,
    ideal: Ideal,
    targets: Any,
    best: Any,
    least: Any,
    lower: Any,
) -> tuple[Any, Any]:
    """The least that gradient descent from the target reaches, and where."""
    # At a maximum, too, the gradient is zero.
    beside = ideal.inside(best + 1e-3 * (lower - best))
    value, at = _least(single, targets, [best, beside])
    value = np.nan_to_num(value, nan=np.inf)
    step = np.full(len(targets), 0.03 * (ideal.high - ideal.low))
    axes = tuple(range(1, at.ndim))
    for _ in range(_STEPS):
        slope = np.nan_to_num(single.slopes(targets, at), posinf=0, neginf=0)
        if ideal.simplex:
            slope = slope - slope.mean(-1, keepdims=True)
        size = np.sqrt(np.sum(slope**2, axis=axes)) + 1e-300
        far = _wide(step / size, at)
        new = ideal.inside(at - far * slope)
        after = single.values(targets, new)
        better = after < value
        at, value = _where(better, new, at), np.where(better, after, value)
        step *= np.where(better, 1.5, 0.3)
    better = value < np.nan_to_num(least, nan=np.inf)
    return np.where(better, value, least), _where(better, at, lower)


def _scale(more: Any) -> float:
    """What the prediction for another target costs more: its median."""
    finite = more[np.isfinite(more)]
    return max(float(np.median(finite)), 0.0) if len(finite) else 0.0


def _clearly(cost: Any, least: Any, scale: float) -> Any:
    """Bool `[K]`: where the least is clearly below what the target costs."""
    with np.errstate(all="ignore"):
        # Of a loss that falls away from the target no measure may be left.
        clear = cost - least > max(_CLEAR * scale, 1e-9)
    return (clear & ~np.isneginf(cost)) | np.isnan(cost)


def _where(chosen: Any, one: Any, other: Any) -> Any:
    return np.where(_wide(chosen, one), one, other)


def _wide(column: Any, rows: Any) -> Any:
    """`[K]` as `[K, 1, ...]`."""
    return np.reshape(column, (-1, *[1] * (rows.ndim - 1)))
