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

__all__ = ["StateAtStart", "state_variables", "written"]


class StateAtStart:
    """Values of variables at the start of the step that is being traced.

    Args:
        variables: `keras.Variable`s to read now.
    """

    def __init__(self, variables: Iterable[Any]) -> None:
        # The bare operation: a read whose output nothing uses is pruned from
        # the graph, and `read_value()` uses it at once.
        self._values: dict[int, tuple[Any, Any]] = {
            id(v): (
                v,
                tf.raw_ops.ReadVariableOp(
                    resource=v.value.handle, dtype=v.value.dtype
                ),
            )
            for v in variables
        }

    def written(self) -> list[Any]:
        """Returns the variables read that the trace so far has assigned.

        Eagerly nothing is known about assigns and all are returned.
        """
        variables = [variable for variable, _ in self._values.values()]
        return variables if tf.executing_eagerly() else written(variables)

    def put_back(self, variables: Iterable[Any]) -> None:
        """Assigns to `variables` their values at the start of the step."""
        for variable in variables:
            variable.value.assign(self._values[id(variable)][1])

    def __contains__(self, variable: Any) -> bool:
        """Whether the variable was read."""
        return id(variable) in self._values


def written(variables: Iterable[Any], but: Collection[str] = ()) -> list[Any]:
    """Returns those of `variables` that the graph being built assigns.

    Args:
        variables: `keras.Variable`s.
        but: names of operations whose assigns do not count.
    """
    graph = tf.compat.v1.get_default_graph()
    assigned: set[str] = set()
    for op in graph.get_operations():
        if op.name not in but:
            _, handles = get_read_write_resource_inputs(op)
            assigned |= {handle.name for handle in handles}
    inside = {id(outer): inner.name for outer, inner in graph.captures}
    return [v for v in variables if inside.get(id(v.value.handle)) in assigned]


def state_variables(model: Any) -> list[Any]:
    """Returns what a step of `model` assigns outside of the optimizer.

    Variables made as state (BatchNorm statistics, seeds, counters) and those
    of metrics; weights of frozen layers are not among them.
    """
    made = [
        variable
        for layer in model._flatten_layers()
        for variable in (
            *layer._non_trainable_variables,
            *(seed.state for seed in layer._seed_generators),
        )
    ]
    return list({id(v): v for v in [*made, *model.metrics_variables]}.values())
