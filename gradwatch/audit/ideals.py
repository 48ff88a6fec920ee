"""What the best prediction of a target is, if a loss compares the two.

A loss says neither what targets it takes nor what it calls a prediction: a
probability, a logit, the logarithm of a rate. So all that is usual is listed,
and a loss is right if one of it is its minimum. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.domain import Domain, Kind

__all__ = ["Ideal", "ideals"]

_LARGE = 16.0
"""A logit that is certain: 1 - sigmoid(16) is 1e-7, an epsilon of float32."""

_SIZES = (_LARGE, 8.0, 4.0, 2.0, 1.0)
_SMOOTH = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Shares of label smoothing, of which 0.1 is usual."""


class Ideal(NamedTuple):
    """Targets, and the predictions that are best for them.

    Attributes:
        targets: domain of the targets.
        low: least value of a prediction.
        high: largest value of a prediction.
        simplex: whether predictions are rows that add up to 1.
        best: targets `[K, ...]` to predictions of which one is the best, each
            float64 `[K, ...]`.
        hard: whether targets are classes.
    """

    targets: Domain
    low: float
    high: float
    simplex: bool
    best: Callable[[Any], list[Any]]
    hard: bool = False

    def inside(self, predictions: Any) -> Any:
        """Returns predictions `[K, ...]`, pulled back to where they may be."""
        if self.simplex:
            found = np.clip(predictions, 1e-9, None)
            return found / found.sum(-1, keepdims=True)
        return np.clip(predictions, self.low, self.high)

    def drawn(self, random: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """Returns predictions anywhere between the bounds: float64 `shape`."""
        if self.simplex:
            return self.inside(random.gamma(0.5, size=shape))
        wide = random.uniform(self.low, self.high, size=shape)
        if self.low >= 0:
            return wide
        near = random.normal(size=shape)
        return np.where(np.arange(shape[0]) % 2, near.T, wide.T).T


def ideals(targets: Domain, predictions: Domain) -> Iterator[Ideal]:
    """Yields what may be meant, likeliest first; nothing if shapes differ."""
    if targets.kind == "ids" and predictions.shape[:-1] == targets.shape:
        yield from _within(predictions, _classes(targets, predictions))
    elif targets.shape == predictions.shape and not targets.whole:
        for kind in _kinds(targets):
            domain = targets if kind is None else replace(targets, kind=kind)
            links = _LINKS[kind] if kind else _given(targets)
            found = (Ideal(domain, *link) for link in links)
            yield from _within(predictions, found)
        if predictions.kind in ("unit", "simplex"):
            # That they are probabilities was found by trying: a logarithm.
            rates = replace(predictions, kind="positive")
            domain = replace(targets, kind="positive")
            found = (Ideal(domain, *link) for link in _LINKS["positive"])
            yield from _within(rates, found)


def _kinds(targets: Domain) -> Iterator[Kind | None]:
    """What targets may be in truth; `None` is as they were stated."""
    kind = targets.kind
    rows = len(targets.shape) > 1 and targets.shape[-1] > 1
    if kind in ("given", "range", "ids"):
        yield None
        if kind == "given":
            return
        if targets.low >= 0:
            small: Kind = "binary" if kind == "ids" else "unit"
            kind = small if targets.high <= 1 else "positive"
        else:
            kind = "signs" if (targets.low, targets.high) == (-1, 1) else kind
    if kind in _LINKS:
        yield kind
    if kind in ("real", "unit", "positive"):
        yield "binary"
    if kind in ("real", "unit", "positive", "binary") and rows:
        yield "one_hot"
        yield "simplex"
    if kind == "real":
        yield "signs"
        yield "positive"
        yield "unit"


def _within(
    predictions: Domain, found: Iterator[Ideal] | list[Ideal]
) -> Iterator[Ideal]:
    """Those whose best predictions the loss takes, in its bounds."""
    bounds = {"unit": (0.0, 1.0), "positive": (1e-3, 30.0)}
    low, high = bounds.get(predictions.kind, (-np.inf, np.inf))
    if predictions.kind == "range":
        low, high = predictions.low, predictions.high
    random = np.random.default_rng(0)
    for ideal in found:
        if predictions.kind == "simplex" and not ideal.simplex:
            continue
        whole = ideal.targets.whole
        if predictions.kind == "real" and ideal.simplex and not whole:
            continue  # what takes any number knows of no row
        bounded = ideal._replace(
            low=max(low, ideal.low), high=min(high, ideal.high)
        )
        if ideal.hard and ideal.low < 0 and low < 0 < high:
            yield bounded  # scores as large as they may be
            continue
        sample = ideal.targets.sample(random, 4)
        some = np.concatenate([b.ravel() for b in ideal.best(sample)])
        slack = 1e-6 + 0.01 * (high - low if np.isfinite(high - low) else 0)
        if some.min() < low - slack or some.max() > high + slack:
            continue
        yield bounded


def _same(targets: Any) -> list[Any]:
    return [targets]


def _smoothed(targets: Any) -> list[Any]:
    """One probability each, as label smoothing wants them."""
    return [(1 - s) * targets + s / 2 for s in _SMOOTH]


def _smoothed_rows(targets: Any) -> list[Any]:
    """Rows of probabilities, as label smoothing wants them."""
    classes = targets.shape[-1]
    return [(1 - s) * targets + s / classes for s in _SMOOTH]


def _scores(targets: Any) -> list[Any]:
    """Classes as logits, as margins, as scores from 0 on."""
    signed = [size * (2 * targets - 1) for size in _SIZES]
    return signed + [size * targets for size in _SIZES]


def _classes(targets: Domain, predictions: Domain) -> list[Ideal]:
    def one_hot(ids: Any) -> Any:
        return np.eye(predictions.shape[-1])[ids.astype(int)]

    return [
        Ideal(targets, *_LOGS, lambda t: _scores(one_hot(t)), True),
        Ideal(targets, 0, 1, True, lambda t: _smoothed_rows(one_hot(t)), True),
    ]


def _given(targets: Domain) -> list[Any]:
    """What is meant by an array, or by a range, of the user's own."""
    if targets.kind in ("range", "ids"):
        width = targets.high - targets.low
        return [
            (targets.low - width, targets.high + width, False, _same, False)
        ]
    numbers = np.asarray(targets.array, float)
    if np.isin(numbers, (0.0, 1.0)).all():
        rows = numbers.ndim > 1 and np.all(numbers.sum(-1) == 1)
        return _LINKS["one_hot" if rows and numbers.shape[-1] > 1 else "binary"]
    if np.isin(numbers, (-1.0, 1.0)).all():
        return _LINKS["signs"]
    low, high = float(numbers.min()), float(numbers.max())
    links = [(low - (high - low), high + (high - low), False, _same, False)]
    return links + (_LINKS["positive"][1:] if low > 0 else [])


def _rounded(best: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def found(targets: Any) -> list[Any]:
        with np.errstate(all="ignore"):
            return [best(targets)]

    return found


_LOGS = (-_LARGE, _LARGE, False)
_LINKS: dict[Any, list[Any]] = {
    "real": [(-24.0, 24.0, False, _same, False)],
    "unit": [
        (0.0, 1.0, False, _same, False),
        (*_LOGS, _rounded(lambda t: np.log(t / (1 - t))), False),
    ],
    "simplex": [
        (0.0, 1.0, True, _same, False),
        (*_LOGS, _rounded(np.log), False),
    ],
    "positive": [
        (1e-3, 30.0, False, _same, False),
        (-6.0, 6.0, False, _rounded(np.log), False),
        (1e-3, 30.0, False, _rounded(lambda t: 1 / t), False),
        (-6.0, 6.0, False, _rounded(lambda t: -np.log(t)), False),
        (-6.0, 30.0, False, _rounded(lambda t: np.log(np.expm1(t))), False),
    ],
    "binary": [
        (*_LOGS, _scores, True),
        (0.0, 1.0, False, _smoothed, True),
    ],
    "one_hot": [
        (*_LOGS, _scores, True),
        (0.0, 1.0, True, _smoothed_rows, True),
    ],
    "signs": [
        (-3.0, 3.0, False, _same, False),
        (*_LOGS, lambda t: [size * t for size in _SIZES], True),
    ],
}
"""Bounds of predictions, whether they add up to 1, the best, whether hard."""
