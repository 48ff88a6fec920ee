"""Learning rates: how a rollback lowers them.

A rate that is a variable is assigned, and is seen, saved and changed like any
other. What computes it (a schedule, a function) is left alone: while a step is
traced, its result is multiplied by a variable of gradwatch's own, which is 1 as
long as there was no rollback. Read in Keras 3.15.1:
`optimizers/base_optimizer.py` (_get_current_learning_rate),
`optimizers/multi_optimizer.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from gradwatch.capture import optimizer as rule
from gradwatch.capture.attributes import hooked
from gradwatch.capture.variables import own_variable

__all__ = ["Rates"]


class Rates:
    """The learning rates of a model's optimizers.

    Args:
        model: the `keras.Model`.
        factor: what they are multiplied by, above 0 and at most 1.
    """

    def __init__(self, model: Any, factor: float) -> None:
        self._model = model
        self._factor = factor
        self._scale = own_variable(tf.ones(()), "rate_scale")

    def variables(self) -> list[Any]:
        """Returns those that are variables."""
        known = [
            getattr(optimizer, "_learning_rate", None)
            for each in rule.optimizers(self._model)
            for optimizer in _inner(each)
        ]
        return [v for v in known if isinstance(v, keras.Variable)]

    def lower(self) -> None:
        """On the host: multiplies all of them."""
        for rate in self.variables():
            rate.assign(rate.numpy() * self._factor)
        self._scale.assign(self._scale * self._factor)

    @contextlib.contextmanager
    def scaled(self, optimizer: Any) -> Iterator[None]:
        """In the graph: what computes an optimizer's rate says less."""

        def rate(original: Any) -> Any:
            value = tf.convert_to_tensor(original())
            return value * tf.cast(self._scale.read_value(), value.dtype)

        computed = [
            each
            for each in _inner(optimizer)
            if not isinstance(
                getattr(each, "_learning_rate", None), keras.Variable
            )
        ]
        name = "_get_current_learning_rate"
        with hooked((each, name, rate) for each in computed):
            yield


def _inner(optimizer: Any) -> list[Any]:
    """Returns the optimizers that change weights on behalf of this one."""
    found = rule.inner(optimizer)
    if found is None:
        return []
    return [*getattr(found, "optimizers", (found,))]
