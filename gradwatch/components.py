"""`component`: marks a term of a loss, so that it is seen by name.

Standard library only: code that marks its terms runs without Keras and costs
nothing where nobody watches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gradwatch.errors import expected

__all__ = ["LISTENERS", "component"]

_Value = TypeVar("_Value")

LISTENERS: list[Callable[[str, object, object], None]] = []
"""Called with each `name, value, weight`; the capture of a watched step."""


def component(name: str, value: _Value, weight: object = 1.0) -> _Value:
    """Marks `weight * value` as a term of the loss that is being computed.

    In a compiled loss the term is reduced as that loss reduces (sample weights,
    masks and loss weights among it) and shown as its part; in a layer it is a
    part of what the layer adds to the loss; in a `train_step` or `compute_loss`
    it is a part of the step's total. What the terms do not explain is shown as
    `unexplained`. Outside of a watched step nothing happens.

    Args:
        name: what the term is called; the part's path is `parent/name`.
        value: float tensor, scalar or `[batch, ...]`. A dimension that the
            loss does not have is averaged.
        weight: float or scalar tensor that the caller multiplies it by.

    Returns:
        `value`, unchanged.

    Raises:
        TypeError: `name` is not a string.
        ValueError: `name` is empty.

    Example:
        >>> def loss(y, p):
        ...     smooth = component("smooth", roughness(p), 0.1)
        ...     return component("fit", squared(y, p)) + 0.1 * smooth
    """
    if not isinstance(name, str):
        raise TypeError(
            expected(
                "name",
                "a string",
                name,
                'Name the term: `component("kl", value)`.',
            )
        )
    if not name:
        raise ValueError(
            expected("name", "a name", name, "Say what the term is.")
        )
    for listener in LISTENERS:
        listener(name, value, weight)
    return value
