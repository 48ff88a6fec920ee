"""A subject's graph: which operations in it cut or change a gradient."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from gradwatch.audit.backward import blamed, users_line
from gradwatch.audit.evaluation import evaluation
from gradwatch.audit.subject import Subject
from gradwatch.provenance import Place, find_cuts, sources
from gradwatch.provenance.paths import custom_gradient, operations
from gradwatch.records import Cut
from gradwatch.reports import Source

__all__ = ["chosen", "cuts", "passes_of", "stops", "stops_of"]


class _Traced:
    """A graph in which each input is read of a variable of its own."""

    def __init__(self, subject: Subject, training: bool) -> None:
        made = evaluation(subject, training)
        point = [value[0] for value in subject.sample(1)]
        values = subject.tensors(point, made.dtype)
        self.variables = {
            one.name: tf.Variable(value)
            for one, value in zip(subject.inputs, values)
        }
        self._reads: list[Any] = []

        def traced() -> list[Any]:
            self._reads = [tf.identity(v) for v in self.variables.values()]
            return subject.outputs(self._reads, made.dtype, training)

        function = tf.function(traced, autograph=False)
        self.graph = function.get_concrete_function().graph

    def passes(self, i: int) -> dict[Any, list[Any]]:
        """Backward passes of the user's behind an input, nearest to it first.

        Returns:
            The operation that each belongs to -> those of its inputs that are
            computed from the input.
        """
        queue = deque(map(Place, self.graph.outputs))
        seen = {place.key for place in queue}
        users: dict[Any, list[Any]] = {}
        found: list[Place] = []
        while queue:
            place = queue.popleft()
            if custom_gradient(place.tensor.op):
                found.insert(0, place)
            for source in sources(place):
                users.setdefault(source.key, []).append(place.key)
                if source.key not in seen:
                    seen.add(source.key)
                    queue.append(source)
        stack = [Place(self._reads[i]).key]
        reached = set(stack)
        while stack:
            new = set(users.get(stack.pop(), ())) - reached
            reached |= new
            stack += new
        told: dict[Any, list[Any]] = {}
        for place in found:
            given = [s.tensor for s in sources(place) if s.key in reached]
            if given:
                told.setdefault(place.tensor.op, given)
        return told

    def backward(
        self, operation: Any, given: list[Any], *, sign: bool
    ) -> Source | None:
        """The user's line that makes the gradient of what a call is given."""
        pass_of = ops.get_gradient_function(operation)
        with operation.graph.as_default():
            upstream = [
                tf.compat.v1.placeholder(t.dtype, t.shape)
                for t in operation.outputs
            ]
            first = tf.constant(0).op._id
            slopes = pass_of(operation, *upstream)
        for tensor, slope in zip(operation.inputs, slopes):
            if slope is not None and any(tensor is each for each in given):
                slope = tf.convert_to_tensor(slope)
                return blamed(slope, upstream, first, sign=sign)
        return None


def _of(subject: Subject, training: bool) -> _Traced | None:
    """The graph, `None` of what runs eagerly only."""
    key = "traced", training
    if key not in subject.cache:
        eager = evaluation(subject, training).eager
        subject.cache[key] = None if eager else _Traced(subject, training)
    found = subject.cache[key]
    assert found is None or isinstance(found, _Traced)
    return found


def cuts(
    subject: Subject, training: bool, names: list[str], *, zero: bool
) -> tuple[Cut, ...]:
    """Returns what keeps gradients from inputs.

    Args:
        subject: whose.
        training: the mode of layers.
        names: of inputs that have none.
        zero: whether their gradients are zero, and not missing.
    """
    traced = _of(subject, training)
    if traced is None:
        return ()
    handles = {name: traced.variables[name].handle for name in names}
    found = find_cuts(traced.graph.outputs, handles, subject.layers, zero=zero)
    return tuple(found)


def passes_of(
    subject: Subject, training: bool, i: int, *, sign: bool = False
) -> dict[Source, list[int]]:
    """Returns the user's lines that may make the gradient of an input.

    Each is one of a backward pass of the user's, else the call of one.

    Args:
        subject: whose.
        training: the mode of layers.
        i: number of the input.
        sign: whether nothing but its sign is wrong.

    Returns:
        A line, that of the nearest backward pass first -> numbers of the
        operations that it belongs to, among those of backward passes.
    """
    traced = _of(subject, training)
    if traced is None:
        return {}
    every = chosen(traced.graph, custom_gradient)
    found: dict[Source, list[int]] = {}
    for operation, given in traced.passes(i).items():
        line = traced.backward(operation, given, sign=sign)
        line = line or users_line(operation)
        if line is not None:
            found.setdefault(line, []).append(every.index(operation))
    return found


def stops_of(subject: Subject, training: bool) -> dict[Source, list[int]]:
    """Returns the user's lines with `stop_gradient`.

    Returns:
        A line -> numbers of its operations among those that stop.
    """
    traced = _of(subject, training)
    found: dict[Source, list[int]] = {}
    if traced is not None:
        for number, operation in enumerate(chosen(traced.graph, stops)):
            line = users_line(operation)
            if line is not None:
                found.setdefault(line, []).append(number)
    return found


def chosen(graph: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """Returns operations of one sort, in an order that all traces have."""
    return [each for each in operations(graph) if wanted(each)]


def stops(operation: Any) -> bool:
    """Whether an operation is a `stop_gradient`."""
    return str(operation.type) == "StopGradient"
