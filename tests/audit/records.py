"""What the set of code for the audit says about each piece of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "wrong_gradient",
    "missing_gradient",
    "zero_gradient",
    "not_finite",
    "swallowed_epsilon",
    "not_at_minimum",
    "batch_mixed",
    "weight_ignored",
    "vanishing",
    "exploding",
]
"""What is wrong with a piece of code."""

Inputs = dict[str, tuple[tuple[int, ...], float, float]]
"""Name of an argument -> shape, lowest and highest value, both included.

Two Python ints as bounds stand for whole numbers (labels, masks), still handed
over as floats, as Keras does with targets.
"""


class Planted(NamedTuple):
    """Code with one fault.

    Attributes:
        name: unique in the set, and says what the code is.
        make: returns the function, layer or loss, new each time.
        inputs: what its user has to tell; None = any real `[batch, features]`.
        expected: the fault.
        line: part of the line that is to be named, once in the code's file;
            `""` = no line is at fault.
        witness: arguments by name (nested lists) where the fault shows, for
            faults that need a special place.
        xla: whether it shows under XLA only.
    """

    name: str
    make: Callable[[], Any]
    inputs: Inputs | None
    expected: Kind
    line: str
    witness: dict[str, Any] | None = None
    xla: bool = False


class Correct(NamedTuple):
    """Code without a fault.

    Attributes:
        name: unique in the set, and says what the code is.
        make: returns the function, layer or loss, new each time.
        inputs: what its user has to tell; None = any real `[batch, features]`.
    """

    name: str
    make: Callable[[], Any]
    inputs: Inputs | None
