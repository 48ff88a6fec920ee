"""A subject's graph: which operations in it cut or change a gradient."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gradwatch.audit.evaluation import evaluation
from gradwatch.audit.subject import Subject
from gradwatch.provenance import find_cuts, line_of
from gradwatch.provenance.paths import custom_gradient, operations
from gradwatch.records import Cut
from gradwatch.reports import Source

__all__ = ["changed_at", "cuts", "stopped_at"]


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

        self._last, self._slopes = 0, dict[int, Any]()

        def traced() -> list[Any]:
            read = [tf.identity(v) for v in self.variables.values()]
            with tf.GradientTape() as tape:
                tape.watch(read)
                results = subject.outputs(read, made.dtype, training)
            watched = [read[i] for i in subject.trained]
            self._last = tf.constant(0).op._id
            floats = [r for r in results if r.dtype.is_floating]
            if floats:
                slopes = tape.gradient(floats, watched)
                self._slopes = dict(zip(subject.trained, slopes))
            return results

        function = tf.function(traced, autograph=False)
        self.graph = function.get_concrete_function().graph

    def backward(self, i: int) -> Source | None:
        """The user's line nearest to a gradient, of a backward pass."""
        slope = self._slopes.get(i)
        queue = [] if slope is None else [tf.convert_to_tensor(slope).op]
        seen = set(queue)
        for operation in queue:
            if operation._id <= self._last:
                continue  # the value's own
            line = line_of(operation)
            if line is not None and "site-packages" not in line.file:
                return Source(*line)
            before = {t.op for t in operation.inputs} - seen
            seen |= before
            queue += sorted(before, key=lambda op: -op._id)
        return None

    def lines(self, wanted: Any) -> list[Source]:
        """Lines of the user's that made operations of one sort."""
        found: dict[Source, None] = {}
        for operation in operations(self.graph):
            line = line_of(operation) if wanted(operation) else None
            if line is not None and "site-packages" not in line.file:
                found[Source(*line)] = None
        return list(found)


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


def changed_at(subject: Subject, training: bool, i: int) -> Source | None:
    """Returns the user's line that makes the gradient of an input.

    That is the last one of a backward pass of the user's, else the call of one.

    Args:
        subject: whose.
        training: the mode of layers.
        i: number of the input.
    """
    traced = _of(subject, training)
    if traced is None:
        return None
    calls = traced.lines(custom_gradient)
    return traced.backward(i) or (calls[0] if calls else None)


def stopped_at(subject: Subject, training: bool) -> Source | None:
    """Returns the user's first line with `stop_gradient`."""
    traced = _of(subject, training)
    lines = traced.lines(_stops) if traced else []
    return lines[0] if lines else None


def _stops(operation: Any) -> bool:
    return str(operation.type) == "StopGradient"
