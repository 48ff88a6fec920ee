"""Which single operation of a graph has a derivative that is wrong.

Each operation is a function of its own, called with what it gets at the point
where the whole is wrong: its registered derivative is compared with differences
of its value as that of the whole was. TensorFlow's `Cumprod` is wrong at zeros.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.audit.backward import MOVES, users_line
from gradwatch.audit.culprit import program_of
from gradwatch.audit.domain import Domain
from gradwatch.audit.evaluation import Evaluation
from gradwatch.audit.lines import compare, coordinates
from gradwatch.audit.points import Points
from gradwatch.audit.running import BACKWARD, Point, Running
from gradwatch.audit.stencils import OUTSIDE
from gradwatch.audit.subject import Input, Subject
from gradwatch.provenance.paths import FUNCTIONS, custom_gradient
from gradwatch.reports import Source

__all__ = ["wrong_alone"]

_SECONDS = 1.0
_FEW = 32
"""Numbers of each input of an operation that are looked at."""

_SURE = (*MOVES, "AddV2", "Mean", "Mul", "Neg", "StopGradient", "Sub")
"""Linear in each input: nothing about their derivatives depends on a place."""


def wrong_alone(run: Running, point: Point) -> Source | None:
    """Returns the user's line of the operation whose derivative is wrong.

    Args:
        run: a subject, traced.
        point: where its gradient is wrong.

    Returns:
        `None` where each is right by itself: what is wrong is how they meet.
    """
    until = time.perf_counter() + _SECONDS
    for operation in run.graph.get_operations():
        if time.perf_counter() > until:
            break
        line = users_line(operation) if _judged(operation) else None
        if line is None:
            continue
        given = program_of(run).run(list(operation.inputs), run.given(point))[0]
        try:
            if _wrong(operation, given):
                return line
        except Exception:  # whatever TensorFlow raises of one by itself
            continue
    return None


def _judged(operation: Any) -> bool:
    return (
        BACKWARD not in operation.name
        and operation.type not in (*_SURE, *FUNCTIONS)
        and not custom_gradient(operation)
        and any(t.dtype.is_floating for t in operation.inputs)
        and all(t.dtype.is_floating for t in operation.outputs)
        and all(t.shape.is_fully_defined() for t in operation.inputs)
    )


def _wrong(operation: Any, given: Sequence[Any]) -> bool:
    free = [k for k, t in enumerate(given) if t.dtype.is_floating]
    inputs = (Input(str(k), Domain(tuple(given[k].shape))) for k in free)
    call = _called(operation, given, free)
    subject = Subject(operation.type, "function", call, tuple(inputs))
    made = Evaluation(subject, False, given[free[0]].dtype.name, False)
    vectors = np.concatenate([np.ravel(given[k]) for k in free])[None]
    vectors = vectors.astype(np.float64)
    results = made.results(vectors)
    upstream = subject.generator(18).uniform(0.5, 1.5, (1, results))
    drawn = Points(vectors, np.zeros(1, bool), upstream)
    # No tape sees what is imported.
    slopes = made.through(vectors, upstream, lambda _: [])
    lines = coordinates(subject, made, drawn, _FEW)
    verdicts = compare(made, drawn, lines, slopes).verdicts
    return bool((verdicts >= OUTSIDE).any())


def _called(
    operation: Any, given: Sequence[Any], free: Sequence[int]
) -> Callable[[Sequence[Any], str, bool], Any]:
    """An operation as a function of some of its inputs."""
    node = operation.node_def
    node.input[:] = [name for name in node.input if not name.startswith("^")]
    definition = tf.compat.v1.GraphDef(node=[node])
    names = [tensor.name for tensor in operation.inputs]

    def call(values: Sequence[Any], dtype: str, training: bool) -> Any:
        parts = dict(zip(names, map(tf.constant, given)))
        parts |= {names[k]: value for k, value in zip(free, values)}
        return tf.graph_util.import_graph_def(
            definition,
            input_map=parts,
            return_elements=[tensor.name for tensor in operation.outputs],
            name="alone",
        )

    return call
