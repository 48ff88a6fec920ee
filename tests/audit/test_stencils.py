"""Verdicts on derivatives, from values along lines alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwatch.audit.stencils import (
    KINK,
    OUTSIDE,
    RIGHT,
    STEPS,
    UNJUDGED,
    WRONG,
    Stencil,
    judge,
)


def verdict(value: Callable[[Any], Any], at: float, claimed: float) -> int:
    """Returns the verdict on a claimed derivative of `value`."""
    steps = np.array(STEPS)[:, None]
    with np.errstate(all="ignore"):
        middle = np.array([value(at)])
        above, below = value(at + steps), value(at - steps)
        slopes = (above - middle) / steps, (middle - below) / steps
        stencil = Stencil(
            middle, above, below, np.minimum(*slopes), np.maximum(*slopes),
            np.abs(middle),
        )  # fmt: skip
        told = np.array([claimed])
        judged = judge(
            stencil, STEPS, told, reference=np.abs(told) + 0.1,
            straight=np.array([True]), single=False,
        )  # fmt: skip
    return int(judged.verdicts[0])


def relu(x: Any) -> Any:
    """The usual one."""
    return np.maximum(x, 0.0)


@pytest.mark.parametrize(
    ("value", "at", "claimed", "expected"),
    [
        (np.sin, 0.3, np.cos(0.3), RIGHT),
        (np.sin, 0.3, 1.001 * np.cos(0.3), WRONG),
        (np.sin, 0.3, -np.cos(0.3), WRONG),
        (np.sin, 0.3, 0.0, WRONG),
        (relu, 0.0, 0.0, KINK),
        (relu, 0.0, 1.0, KINK),
        (relu, 0.0, 0.4, KINK),
        (relu, 0.0, 1.5, OUTSIDE),
        (relu, 0.0, -0.5, OUTSIDE),
        (relu, 1e-6, 1.0, RIGHT),  # at the rim of a kink
        (relu, 3e-9, 1.0, KINK),  # nearer than the smallest step
        (relu, 1e-6, 0.0, WRONG),
        (relu, -1.0, 0.0, RIGHT),
        (relu, -1.0, 1.0, WRONG),
        (lambda x: 1e4 * x * x, 0.01, 200.0, RIGHT),  # strongly curved
        (lambda x: np.sin(1e4 * x), 0.0, 1e4, RIGHT),
        (lambda x: np.sin(1e4 * x), 0.0, 1.0, WRONG),
        (np.log, 1e-6, 1e6, RIGHT),  # a pole nearby
        (np.log, 1e-5, 2e5, WRONG),
        (np.log, 0.0, np.inf, UNJUDGED),
        (np.sign, 0.0, 0.0, UNJUDGED),
        (np.round, 0.5, 1.0, UNJUDGED),  # a step
        (np.abs, 0.0, 0.0, RIGHT),
        (lambda x: x * np.sin(1 / x), 1e-5, 7.0, UNJUDGED),  # no end of kinks
        (lambda x: (1e8 + x) - 1e8, 0.3, 1.0, RIGHT),  # half of the digits lost
    ],
)
def test_verdicts(value: Any, at: float, claimed: float, expected: int) -> None:
    """What is smooth is decided, what is not is only where it must be."""
    assert verdict(value, at, claimed) == expected
