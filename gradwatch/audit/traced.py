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

        def traced() -> list[Any]:
            read = [tf.identity(v) for v in self.variables.values()]
            return subject.outputs(read, made.dtype, training)

        function = tf.function(traced, autograph=False)
        self.graph = function.get_concrete_function().graph

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


def changed_at(subject: Subject, training: bool) -> list[Source]:
    """Returns lines of the user's that bring a gradient of their own."""
    traced = _of(subject, training)
    return traced.lines(custom_gradient) if traced else []


def stopped_at(subject: Subject, training: bool) -> list[Source] | None:
    """Returns lines of the user's with `stop_gradient`.

    `None` where there is none at all, not even in a library.
    """
    traced = _of(subject, training)
    if traced is None:
        return None
    every = operations(traced.graph)
    if not any(map(_stops, every)):
        return None
    return traced.lines(_stops)


def _stops(operation: Any) -> bool:
    return str(operation.type) == "StopGradient"
