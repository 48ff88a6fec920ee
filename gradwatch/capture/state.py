"""State that a step assigns outside the optimizer, and how to put it back.

BatchNorm statistics, seed generators, counters and metrics are assigned while
the step runs, before anybody knows that it is bad. Their values are read at
the start of the step; `put_back` assigns them again. Read in Keras 3.15.1:
`layers/layer.py` (_non_trainable_variables, _seed_generators).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import tensorflow as tf

# Read in tensorflow 2.21 (python/framework/auto_control_deps_utils.py): tells
# for any operation, functional ones included, which resources it writes.
from tensorflow.python.framework.auto_control_deps_utils import (
    get_read_write_resource_inputs,
)

from gradwatch.capture.replicas import part

__all__ = ["StateAtStart", "state_variables"]


class StateAtStart:
    """Values of variables at the start of the step that is being traced.

    Args:
        variables: `keras.Variable`s to read now.
    """

    def __init__(self, variables: Iterable[Any]) -> None:
        self._values: dict[int, tuple[Any, Any]] = {}
        self._scanned = 0
        self._writers: dict[str, list[str]] = {}
        self.read(variables)

    def read(self, variables: Iterable[Any]) -> None:
        """Reads those not read yet; the step has not assigned them so far."""
        for variable in variables:
            if id(variable) not in self._values:
                # The bare operation: a read whose output nothing uses is
                # pruned from the graph, and `read_value()` uses it at once.
                value = tf.raw_ops.ReadVariableOp(
                    resource=variable.value.handle, dtype=variable.value.dtype
                )
                self._values[id(variable)] = (variable, value)

    def __getitem__(self, variable: Any) -> Any:
        """Its value at the start of the step."""
        return self._values[id(variable)][1]

    def written(self, but: Collection[str] = ()) -> list[Any]:
        """Returns the variables read that the step may have assigned so far.

        While a graph is being built these are those that it assigns; eagerly
        nothing is known about assigns and all are returned.

        Args:
            but: names of operations whose assigns do not count.
        """
        variables = [variable for variable, _ in self._values.values()]
        if tf.executing_eagerly():
            return variables
        return self._assigned(variables, but)

    def missed(
        self, variables: Iterable[Any], but: Collection[str]
    ) -> list[Any]:
        """Returns those that the graph assigns although they were not read.

        Args:
            variables: `keras.Variable`s.
            but: names of operations whose assigns do not count.
        """
        if tf.executing_eagerly():
            return []
        unread = [v for v in variables if id(v) not in self._values]
        return self._assigned(unread, but)

    def put_back(self, variables: Iterable[Any]) -> None:
        """Assigns to `variables` their values at the start of the step."""
        for variable in variables:
            part(variable.value).assign(self[variable])

    def _assigned(
        self, variables: Iterable[Any], but: Collection[str]
    ) -> list[Any]:
        graph = tf.compat.v1.get_default_graph()
        operations = graph.get_operations()
        for op in operations[self._scanned :]:
            for handle in get_read_write_resource_inputs(op)[1]:
                self._writers.setdefault(handle.name, []).append(op.name)
        self._scanned = len(operations)
        inside = {
            id(_origin(outer)): inner.name for outer, inner in graph.captures
        }

        def assigned(variable: Any) -> bool:
            name = inside.get(id(variable.value.handle), "")
            return any(op not in but for op in self._writers.get(name, ()))

        return [variable for variable in variables if assigned(variable)]


def _origin(tensor: Any) -> Any:
    """What a captured tensor is outside of all graphs that capture it."""
    while captures := getattr(getattr(tensor, "graph", None), "captures", ()):
        outer = [o for o, inner in captures if inner is tensor]
        if not outer:
            break
        tensor = outer[0]
    return tensor


def state_variables(model: Any) -> list[Any]:
    """Returns what a step of `model` may assign outside of the optimizer.

    Variables made as state (BatchNorm statistics, seeds, counters) and those
    of metrics. Weights are not among them, since each read costs; eagerly,
    where reading is only a reference and assigns cannot be seen, they are.
    """
    made = [
        variable
        for layer in model._flatten_layers()
        for variable in (
            *layer._non_trainable_variables,
            *(seed.state for seed in layer._seed_generators),
        )
    ]
    if tf.executing_eagerly():
        made += model.variables
    return list({id(v): v for v in [*made, *model.metrics_variables]}.values())
