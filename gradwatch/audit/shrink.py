"""A bad point made simple: ordinary numbers wherever it stays bad."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradwatch.audit.running import Point
from gradwatch.audit.subject import Subject

__all__ = ["shrunk"]

_ROWS = ("simplex", "one_hot")
_SECONDS = 0.3
_MOST = 64


def shrunk(
    subject: Subject, point: Point, bad: Callable[[Point], bool]
) -> list[Any]:
    """Returns a point in which as few numbers as possible are unusual.

    Examples are made usual first, then single numbers; rows of probabilities
    stay such.

    Args:
        subject: what is called.
        point: where something is wrong.
        bad: whether that is so at a point.
    """
    until = time.perf_counter() + _SECONDS
    usual = [
        value[0] if one.weight else np.round(value[0], 1)
        if one.domain.kind in ("real", "unit", "positive") else value[0]
        for one, value in zip(subject.inputs, subject.sample(1, salt=3))
    ]  # fmt: skip
    found = [np.array(value) for value in point]
    for i, place in _pieces(subject, found):
        if time.perf_counter() > until:
            break
        if np.array_equal(found[i][place], usual[i][place]):
            continue
        before = found[i][place].copy()
        found[i][place] = usual[i][place]
        if not bad(found):
            found[i][place] = before
    return found


def _pieces(subject: Subject, point: Point) -> Iterator[tuple[int, Any]]:
    """Yields inputs and parts of them, larger ones first."""
    free = [i for i, one in enumerate(subject.inputs) if not one.weight]
    for i in free:
        yield i, ...
    for i in free:
        if point[i].ndim:
            for row in range(min(len(point[i]), _MOST)):
                yield i, row
    for i in free:
        if subject.inputs[i].domain.kind not in _ROWS and point[i].ndim > 1:
            for k in range(min(point[i].size, _MOST)):
                yield i, np.unravel_index(k, point[i].shape)
