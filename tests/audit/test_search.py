"""The search for inputs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from gradwatch.audit.kinds import subject_of
from gradwatch.audit.running import Point
from gradwatch.audit.search import search

KINDS: tuple[tuple[Any, Any], ...] = (
    ((3, 2), ((3, 2), (-2, 5))),
    ("3/0..4/int", (3, 5)),
    (np.eye(3), np.ones((3, 3))),
)


@pytest.mark.parametrize(("y_true", "y_pred"), KINDS)
def test_points_are_inside(y_true: Any, y_pred: Any) -> None:
    """What is tried has the shape and the range of its domain."""
    inputs = {"y_true": y_true, "y_pred": y_pred}
    subject = subject_of(lambda y_true, y_pred: y_pred, inputs, 0)
    tried: list[Point] = []

    def good(point: Point) -> bool:
        tried.append(point)
        return False

    none, count = search(subject, good, 0.2)
    assert none is None
    assert count == len(tried) > 3
    for point in tried:
        for one, value in zip(subject.inputs, point):
            assert value.shape == one.domain.shape
            if one.domain.kind in ("range", "ids"):
                assert value.min() >= one.domain.low
                assert value.max() <= one.domain.high


def test_the_simplest_is_returned() -> None:
    """Shrunk to a single number, the same each time, in time."""
    subject = subject_of(lambda x: x, {"x": (2, 3)}, 0)
    began = time.perf_counter()
    found = [
        search(subject, lambda p: bool((p[0] > 33.0).any()), 0.5)[0]
        for _ in range(2)
    ]
    assert time.perf_counter() - began < 3
    assert found[0] is not None
    assert found[1] is not None
    assert np.count_nonzero(found[0][0]) == 1
    assert np.array_equal(found[0][0], found[1][0])
