"""A search for inputs at which something is wrong, by hypothesis.

The same inputs each time, and for a given time at most. What is found is shrunk
to the simplest input that hypothesis knows of.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gradwatch.audit.domain import Domain
from gradwatch.audit.edges import LARGEST
from gradwatch.audit.running import Point
from gradwatch.audit.subject import Subject

__all__ = ["search"]

_LEAST = 1e-6
"""Smaller numbers are 0 here; `edges.py` has tiny ones."""

_MANY = 32
"""So many numbers of an input are drawn, and repeated where there are more."""

_EXAMPLES = 2000


class _TimeUp(BaseException):
    """The time is over; no `Exception`, which hypothesis would keep."""


def search(
    subject: Subject, bad: Callable[[Point], bool], seconds: float
) -> tuple[Point | None, int]:
    """Returns the simplest bad point that is found, and how many were tried.

    Args:
        subject: in whose domains to search.
        bad: whether something is wrong at a point.
        seconds: for how long.

    Raises:
        ImportError: hypothesis is not installed.
    """
    import hypothesis
    from hypothesis.errors import Flaky, NoSuchExample

    until, tried = time.perf_counter() + seconds, 0
    found: list[Point] = []

    def condition(point: Point) -> bool:
        nonlocal tried
        if time.perf_counter() > until:
            raise _TimeUp
        tried += 1
        wrong = bad(point)
        if wrong:
            found.append(point)
        return wrong

    settings = hypothesis.settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        verbosity=hypothesis.Verbosity.quiet,
    )
    with contextlib.suppress(NoSuchExample, Flaky, _TimeUp):
        hypothesis.find(_points(subject), condition, settings=settings)
    return min(found, key=_size, default=None), tried


def _size(point: Point) -> tuple[int, float]:
    """How far from simple a point is."""
    every = np.concatenate([np.ravel(value) for value in point])
    return int(np.count_nonzero(every)), float(np.abs(every).sum())


def _points(subject: Subject) -> Any:
    """A strategy of points: weights as they are, inputs of their domains."""
    from hypothesis import strategies as st

    inputs = subject.inputs
    weights = [value[0] for value in subject.sample(1)]
    free = [i for i, one in enumerate(inputs) if not one.weight]
    parts = [_inputs(inputs[i].domain) for i in free]
    alike = [
        i
        for i in free[1:]
        if inputs[i].domain.shape == inputs[free[0]].domain.shape
        and not inputs[free[0]].domain.whole
    ]

    def joined(drawn: Any) -> list[Any]:
        values, same = drawn
        point = [*values, *weights[len(free) :]]
        for i in alike if same else ():
            point[i] = inputs[i].domain.clipped(point[free[0]])
        return point

    return st.tuples(st.tuples(*parts), st.booleans()).map(joined)


def _inputs(domain: Domain) -> Any:
    """A strategy of float64 arrays."""
    from hypothesis import strategies as st

    size = int(np.prod(domain.shape))
    few = min(size, _MANY)
    match domain.kind:
        case "simplex":
            return _lists(st.floats(0, 1), few).map(
                lambda drawn: _rows(_shaped(drawn, domain))
            )
        case "one_hot":
            return _lists(st.integers(0, domain.shape[-1] - 1), few).map(
                lambda drawn: np.eye(domain.shape[-1])[
                    np.resize(drawn, domain.shape[:-1]).astype(int)
                ]
            )
        case "given":
            last = len(domain.array) - 1
            rows = domain.shape[0] if domain.shape else 1
            return _lists(st.integers(0, last), rows).map(
                lambda drawn: np.reshape(
                    domain.array[drawn], domain.shape
                ).astype(float)
            )
    return _lists(_numbers(domain), few).map(lambda d: _shaped(d, domain))


def _numbers(domain: Domain) -> Any:
    from hypothesis import strategies as st

    match domain.kind:
        case "binary":
            return st.sampled_from((0.0, 1.0))
        case "signs":
            return st.sampled_from((1.0, -1.0))
        case "ids":
            return st.integers(int(domain.low), int(domain.high)).map(float)
        case "range":
            return st.floats(domain.low, domain.high)
        case "unit":
            return st.floats(0, 1, width=32).map(_plain)
        case "positive":
            return st.floats(0, LARGEST, width=32).map(lambda x: max(x, _LEAST))
    few = st.sampled_from((0.0, 1.0, -1.0, 20.0, -20.0, 100.0, -100.0))
    return few | st.floats(-LARGEST, LARGEST, width=32).map(_plain)


def _plain(number: float) -> float:
    return number if abs(number) >= _LEAST else 0.0


def _lists(numbers: Any, count: int) -> Any:
    from hypothesis import strategies as st

    return st.lists(numbers, min_size=count, max_size=count)


def _shaped(drawn: Any, domain: Domain) -> Any:
    return np.resize(np.asarray(drawn, float), domain.shape)


def _rows(numbers: Any) -> Any:
    """Rows that add up to 1; even ones of zeros."""
    total = numbers.sum(-1, keepdims=True)
    even = np.full_like(numbers, 1.0 / numbers.shape[-1])
    return np.where(total > _LEAST, numbers / np.maximum(total, _LEAST), even)
