"""The points at which a subject is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.evaluation import Evaluation, join
from gradwatch.audit.subject import Subject

__all__ = ["Points", "apart", "nested", "points", "shown"]

_RANDOM = 12
_MANY = 2000
"""Numbers in a point above which fewer points will do."""


class Points(NamedTuple):
    """Points of a subject.

    Attributes:
        vectors: float64 `[P, N]`.
        special: bool `[P]`: whether a point was not drawn at random.
        upstream: float64 `[P, M]`: random weights of the results, in which no
            error cancels out as it may in a plain sum; 1 for a single result.
    """

    vectors: Any
    special: Any
    upstream: Any


def points(subject: Subject, made: Evaluation) -> Points:
    """Returns random points, and such with special values; the same each time.

    Args:
        subject: whose domains they are of.
        made: its evaluation, in a mode.
    """
    random = subject.generator(7)
    width = made.slices[-1].stop
    drawn = _RANDOM if width <= _MANY else 4
    vectors = [join(subject.sample(drawn))]
    vectors += [join([v[None] for v in point]) for point in _special(subject)]
    found = np.concatenate(vectors)
    results = made.results(found)
    upstream = random.uniform(0.5, 1.5, (len(found), results))
    upstream *= random.choice([-1.0, 1.0], upstream.shape)
    if results == 1:
        upstream[:] = 1.0
    return Points(found, np.arange(len(found)) >= drawn, upstream)


def _special(subject: Subject) -> Iterator[list[Any]]:
    """Yields points in which some numbers, or all, are special ones."""
    random = subject.generator(8)
    drawn = iter(zip(*subject.sample(40, salt=1)))
    for i in subject.trained:
        one = subject.inputs[i]
        if one.weight:
            continue
        for value in one.domain.special():
            point = list(next(drawn))
            chosen = random.random(one.domain.shape) < 0.5
            point[i] = np.where(chosen, value, point[i])
            yield point
        point = list(next(drawn))
        point[i] = np.full(one.domain.shape, point[i].flat[0])
        yield point  # all alike: ties
    if subject.kind == "loss":
        yield from _alike(subject, list(next(drawn)))


def _alike(subject: Subject, point: list[Any]) -> Iterator[list[Any]]:
    """A prediction that is its target."""
    (i,) = subject.trained
    one, target = subject.inputs[i], subject.inputs[1 - i]
    if one.domain.shape == target.domain.shape and not target.domain.whole:
        point[i] = one.domain.clipped(point[1 - i])
        yield point


def apart(subject: Subject, made: Evaluation, vector: Any) -> list[Any]:
    """Returns a point as arrays, one for each input."""
    return [
        vector[part].reshape(one.domain.shape)
        for one, part in zip(subject.inputs, made.slices)
    ]


def nested(subject: Subject, made: Evaluation, vector: Any) -> dict[str, Any]:
    """Returns arguments of a point by name, for a report."""
    return {
        one.name: shown(vector[part].reshape(one.domain.shape))
        for one, part in zip(subject.inputs, made.slices)
        if not one.weight
    }


def shown(array: Any) -> Any:
    """Numbers as nested lists, to 6 digits."""
    rounded = np.vectorize(lambda v: float(f"{v:.6g}"), otypes=[float])(array)
    return rounded.tolist()
