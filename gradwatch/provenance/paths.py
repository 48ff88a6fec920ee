"""What a tensor was computed from, inside of functions, branches, loops too.

Only data flow: where a tensor tells of another one's shape alone, it does not
follow from its values. Read in tensorflow 2.21:
`python/ops/while_v2.py`, `python/ops/cond_v2.py`,
`python/ops/custom_gradient.py` (_graph_mode_decorator),
`python/eager/polymorphic_function/atomic_function.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = [
    "FUNCTIONS",
    "Call",
    "Place",
    "called_graphs",
    "custom_gradient",
    "operations",
    "sources",
]

FUNCTIONS = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
    "While": ("body", "cond"),
    "StatelessWhile": ("body", "cond"),
}
"""Operations that run other graphs, and the attributes that name these."""

_SHAPES = (
    "OnesLike",
    "Rank",
    "Shape",
    "ShapeN",
    "Size",
    "TensorListElementShape",
    "TensorListLength",
    "VariableShape",
    "ZerosLike",
)
"""Operations that look at no value of their input."""


class Call(NamedTuple):
    """An operation that runs another graph.

    Attributes:
        operation: the `tf.Operation` that calls.
        graph: what it runs.
        first: which of its inputs is the graph's first one.
        again: of a loop the graph whose results are its next inputs.
    """

    operation: Any
    graph: Any
    first: int
    again: Any


class Place(NamedTuple):
    """A tensor and how it is reached.

    Attributes:
        tensor: of the step's graph, or of one that this one runs.
        calls: those it is inside of, outermost first.
    """

    tensor: Any
    calls: tuple[Call, ...] = ()

    @property
    def key(self) -> tuple[int, tuple[Call, ...]]:
        """What is the same for the same place."""
        return id(self.tensor), self.calls


def sources(place: Place) -> list[Place]:
    """Returns the tensors that a tensor was directly computed from."""
    tensor, calls = place
    operation = tensor.op
    if operation.type == "Placeholder":
        return _outside(place) if calls else []
    if operation.type in _SHAPES:
        return []
    if operation.type in FUNCTIONS:
        inside = _inside(place)
        if inside:
            return inside
    inputs = list(operation.inputs)
    if custom_gradient(operation):
        # The results stand first, then the arguments, unused as outputs.
        used = [i for i, t in enumerate(operation.outputs) if t.consumers()]
        inputs = inputs[max(used, default=-1) + 1 :] or inputs
    return [Place(source, calls) for source in inputs]


def called_graphs(operation: Any) -> dict[str, Any]:
    """Returns the graphs that an operation runs, by the names of attributes.

    Of `Case` there is one for all; `None` stands for one that is not kept.
    """
    kinds = FUNCTIONS.get(operation.type, ())
    return {kind: _graphs(operation, kind)[0] for kind in kinds}


def operations(graph: Any, before: float = math.inf) -> Iterator[Any]:
    """Yields the operations of a graph and of the graphs that it runs.

    Args:
        graph: also while it is being built.
        before: number of the operation at which to stop.
    """
    seen = {id(graph)}
    graphs = [graph]
    while graphs:
        for operation in graphs.pop().get_operations():
            if operation._id >= before:
                break
            yield operation
            for kind in FUNCTIONS.get(operation.type, ()):
                called = [g for g in _graphs(operation, kind) if g is not None]
                graphs += [g for g in called if id(g) not in seen]
                seen |= set(map(id, called))
        before = math.inf


def custom_gradient(operation: Any) -> bool:
    """Whether a `tf.custom_gradient` stands for the derivative."""
    return operation.type == "IdentityN" and "_gradient_op_type" in (
        operation.node_def.attr
    )


def _inside(place: Place) -> list[Place]:
    """What a call's result is inside of the graphs that it runs."""
    operation, index = place.tensor.op, place.tensor.value_index
    calls = place.calls
    kinds = FUNCTIONS[operation.type]
    graphs = [g for kind in kinds for g in _graphs(operation, kind)]
    if None in graphs:
        return []
    again = graphs[0] if "body" in kinds else None
    chosen = "f" not in kinds and again is None
    found = [Place(operation.inputs[0], calls)] if chosen else []
    for graph in graphs:
        call = Call(operation, graph, int(chosen), again)
        condition = again is not None and graph is not again
        result = graph.outputs[0 if condition else index]
        found.append(Place(result, (*calls, call)))
    return found


def _outside(place: Place) -> list[Place]:
    """What was handed to a graph as this input of it."""
    call, calls = place.calls[-1], place.calls[:-1]
    for i, known in enumerate(call.graph.inputs):
        if known is place.tensor:
            given = call.operation.inputs[call.first + i]
            found = [Place(given, calls)]
            if call.again is not None:
                before = call._replace(graph=call.again)
                found.append(Place(call.again.outputs[i], (*calls, before)))
            return found
    return []


def _graphs(operation: Any, kind: str) -> list[Any]:
    """The graphs that an attribute names, `None` for one that is not kept."""
    named = operation.get_attr(kind)
    named = named if isinstance(named, list) else [named]
    return [_graph(operation.graph, function.name) for function in named]


def _graph(graph: Any, name: str) -> Any:
    while graph is not None:
        function = graph._get_function(name)
        if function is not None:
            return getattr(function, "graph", None)
        graph = getattr(graph, "outer_graph", None)
    return None
