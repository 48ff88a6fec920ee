"""Where a function itself outgrows a dtype, and how large its inputs may be.

`exp(x)` is infinite in float32 from 88.7 on since what it computes is:
nothing is wrong with its code. Of `log(1 + exp(x))`, which is 88.7 there, the
code is at fault. So the numbers of a point are scaled down until all is finite,
and the last value and gradient before are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.audit.running import Answer, Point, Running
from gradwatch.audit.subject import Subject

__all__ = ["edge", "grows", "largest", "lowered"]

_SMALL = 3.0
"""Numbers up to that are scaled no further down."""

_NEAR = 1e-4
"""So close to the largest number of a dtype a function leaves it by itself."""

_HALVINGS = 45


def grows(subject: Subject, run: Running, point: Point) -> bool:
    """Whether a point is not finite since the function itself is too large.

    Args:
        subject: what was called.
        run: in the mode and dtype in which it is not finite.
        point: where.
    """
    answer, _ = edge(subject, run, point)
    return answer is not None and answer.largest > _NEAR * _most(run.dtype)


def edge(
    subject: Subject, run: Running, point: Point
) -> tuple[Answer | None, float]:
    """Returns the last finite answer on the way up to a point.

    Args:
        subject: what was called.
        run: in the mode and dtype in which it is not finite.
        point: where.

    Returns:
        The answer, and the largest magnitude in the inputs there; `None` and 0
        where the point is not large, or not finite on all the way.
    """
    size = _size(subject, point)
    if size <= _SMALL:
        return None, 0.0

    def good(share: float) -> bool:
        return run(_scaled(subject, point, share)).finite

    share = _last(good, _SMALL / size, 1.0)
    if not share:
        return None, 0.0
    return run(_scaled(subject, point, share)), size * share


def lowered(subject: Subject, run: Running, point: Point) -> Point:
    """Returns a point scaled down, if it is not finite then either.

    What is wrong with it has nothing to do with its size.
    """
    size = _size(subject, point)
    if size <= _SMALL:
        return point
    small = _scaled(subject, point, _SMALL / size)
    return point if run(small).finite else small


def _size(subject: Subject, point: Point) -> float:
    """The largest magnitude of numbers that have no bounds."""
    return max(
        (
            float(np.abs(point[i]).max(initial=0.0))
            for i in range(len(point))
            if _boundless(subject, i)
        ),
        default=0.0,
    )


def _scaled(subject: Subject, point: Point, share: float) -> list[Any]:
    return [
        value * share if _boundless(subject, i) else value
        for i, value in enumerate(point)
    ]


def _boundless(subject: Subject, i: int) -> bool:
    one = subject.inputs[i]
    return one.domain.kind in ("real", "positive", "range") and not one.weight


def _last(good: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number from `low` to `high` at which all is good, or 0."""
    if not good(low):
        return 0.0
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        if good(middle):
            low = middle
        else:
            high = middle
        if high / low < 1 + 1e-7:
            break
    return low


def largest(subject: Subject, run: Running) -> float:
    """Returns the largest magnitude of real inputs at which all is finite.

    Powers of 2 are tried, with both signs and among usual numbers.

    Args:
        subject: what is called.
        run: in the mode and dtype that are asked about.
    """
    usual = [value[0] for value in subject.sample(1, salt=3)]
    random = subject.generator(13)
    free = [
        (i, random.choice([-1.0, 1.0], usual[i].shape))
        for i in subject.trained
        if subject.inputs[i].domain.kind == "real"
        and not subject.inputs[i].weight
    ]
    size = 1.0
    while free and 2 * size < _most(run.dtype):
        point = list(usual)
        for i, signs in free:
            point[i] = 2 * size * signs
        if not run(point).finite:
            break
        size *= 2
    return size if free and 4 * size < _most(run.dtype) else 0.0


def _most(dtype: str) -> float:
    return float(tf.as_dtype(dtype).max)
