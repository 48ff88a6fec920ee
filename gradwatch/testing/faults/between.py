"""Faults between two steps: weights, learning rate, and the process."""

from __future__ import annotations

import abc
import math
import os
import signal
from collections.abc import Sequence
from typing import Any

import keras

from gradwatch.errors import UnsupportedError, expected
from gradwatch.testing.faults.fault import Fault, refuse

__all__ = ["Crash", "InfWeight", "Kill", "LearningRate", "ZeroedLayer"]


class Between(Fault):
    """A fault that comes just before a step, between two executions.

    Attributes:
        lasts: whether it comes before each later execution, too.
    """

    lasts = False

    @abc.abstractmethod
    def act(self) -> None:
        """Lets it happen."""

    def check(self, offset: int) -> None:
        """See `Fault`."""
        if offset:
            refuse(
                "at_step",
                f"the first of the {self.executes} steps of an execution",
                self.at_step,
                f"This can be done between executions only: take "
                f"{self.at_step - offset}, or `steps_per_execution=1`.",
            )

    def execution_begins(self, step: int) -> None:
        """See `Fault`."""
        if step == self.at_step and not self.time:
            self.came()
            self.act()
        elif self.time and self.lasts:
            self.act()


class InfWeight(Between):
    """An entry of a weight is Inf.

    Args:
        at_step: the first step that sees it.
        variable: path of the weight; the last kernel if there is none. In an
            earlier one a ReLU may hide it: on CPU, TensorFlow's makes 0 of NaN.
        value: what the entry is, NaN, say.
    """

    def __init__(
        self,
        at_step: int,
        variable: str = "",
        *,
        value: float = math.inf,
    ) -> None:
        super().__init__(at_step)
        self.variable = variable
        self.value = value

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        where = self.variable or "the last kernel"
        return f"an entry of {where} is {self.value}"

    def check(self, offset: int) -> None:
        """See `Fault`."""
        super().check(offset)
        if self.variable and self.model.built:
            self._weight()

    def act(self) -> None:
        """See `Between`."""
        weight = self._weight()
        values = weight.value.numpy().copy()
        values.flat[0] = self.value
        weight.assign(values)

    def _weight(self) -> Any:
        weights = self.model.trainable_variables
        if not self.variable:
            kernels = [w for w in weights if len(w.shape) > 1]
            return (kernels or weights)[-1]
        return _called("variable", self.variable, weights, "path")


class ZeroedLayer(Between):
    """From a step on all trainable weights of a layer are 0.

    They are set to 0 before each execution: an optimizer with momentum moves
    weights also where the gradient is 0.

    Args:
        at_step: the first step that sees it.
        layer: name of the layer.
    """

    lasts = True

    def __init__(self, at_step: int, layer: str) -> None:
        super().__init__(at_step)
        self.layer = layer

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        return f"all weights of {self.layer} are 0"

    def check(self, offset: int) -> None:
        """See `Fault`."""
        super().check(offset)
        self._found()

    def act(self) -> None:
        """See `Between`."""
        for weight in self._found().trainable_variables:
            weight.assign(keras.ops.zeros_like(weight))

    def _found(self) -> Any:
        layers = list(self.model._flatten_layers(include_self=False))
        return _called("layer", self.layer, layers, "name")


class LearningRate(Between):
    """The learning rate is another one from a step on.

    Args:
        at_step: the first step with it.
        rate: so large that training explodes, or 0, so that it stalls.
    """

    def __init__(self, at_step: int, rate: float) -> None:
        super().__init__(at_step)
        self.rate = rate

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        return f"the learning rate is {self.rate:g}"

    def check(self, offset: int) -> None:
        """See `Fault`."""
        super().check(offset)
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        rate = optimizer._learning_rate
        if not isinstance(rate, keras.Variable):
            raise UnsupportedError(
                expected(
                    "optimizer",
                    "a learning rate that is a number",
                    type(rate).__name__,
                    "A schedule is a part of the compiled step: compile with "
                    "a number.",
                )
            )

    def act(self) -> None:
        """See `Between`."""
        self.model.optimizer.learning_rate = self.rate


class Crash(Between):
    """The training raises a RuntimeError.

    Args:
        at_step: the step that is not reached.
    """

    meaning = "a callback raises RuntimeError"

    def act(self) -> None:
        """See `Between`."""
        raise RuntimeError(f"Fault at step {self.at_step}.")


class Kill(Between):
    """The process ends by SIGKILL, as when memory runs out: nobody says so.

    It is the process that trains: start it in one of its own.
    """

    meaning = "the process is killed"

    def act(self) -> None:
        """See `Between`."""
        os.kill(os.getpid(), signal.SIGKILL)


def _called(
    argument: str, name: str, things: Sequence[Any], attribute: str
) -> Any:
    """Returns the thing of that name."""
    names = [getattr(thing, attribute) for thing in things]
    if name not in names:
        refuse(argument, f"one of {names}", name, "Name one of the model's.")
    return things[names.index(name)]
