"""Whether a function gives the same in a graph, under XLA and eagerly.

What is computed in Python while it is traced (a counter, numpy's random
numbers, a branch on a value) stays as it was then; XLA has kernels of its own,
which do otherwise where TensorFlow's leave something open (a number that is too
large for an integer).

Values and gradients are the same if they differ by no more than rounding can
make of them: that is measured, by how much the graph's own change where each
number of an input is the next one that the dtype has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.audit.backward import users_line
from gradwatch.audit.culprit import program_of
from gradwatch.audit.evaluation import evaluation
from gradwatch.audit.nearby import LEAST, draws, epsilon, next_to, noise
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.running import (
    Answer,
    Mode,
    Point,
    Running,
    as_before,
    running,
)
from gradwatch.audit.subject import Subject
from gradwatch.reports import Source

__all__ = ["agreement"]

_POINTS = 4
_AGREED = 2
"""At fewer of these it may be a step or a tie, which falls either way."""

_STEPS = 3
_BEYOND = 100.0
"""So many times what rounding was seen to change."""

_CHECKS = {"eager": "graph_differs", "xla": "xla_differs"}
_EAGERLY = (
    "In a graph, as `fit` computes it, {what} another one than eagerly: "
    "{here:.6g} instead of {there:.6g}. What Python computes while it is "
    "traced stays as it was then."
)
_XLA = (
    "Under XLA, which Keras uses by itself on a GPU, {what} another one than "
    "in graph mode: {there:.6g} instead of {here:.6g}{by}."
)
_WORDS = {"eager": _EAGERLY, "xla": _XLA}
_ADVICE = {
    "eager": "Use operations of TensorFlow or `keras.ops` only.",
    "xla": "Keep numbers inside of what each dtype holds, or pass "
    "`jit_compile=False` to `compile`.",
}


class _Gap(NamedTuple):
    """Where two ways to compute differ.

    Attributes:
        point: see `Point`.
        of: name of the input whose gradient it is, `""` of the value.
        here: a number in graph mode.
        there: the same in the other way.
    """

    point: Point
    of: str
    here: float
    there: float


def agreement(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Compares what graph mode, XLA and eager code compute in training."""
    if evaluation(subject, False).eager:
        text = "it cannot be traced: `fit` fails without `run_eagerly=True`."
        yield Measurement("graph", "", "no", text)
        return
    for training in subject.modes:
        found = next(_found(subject, training), None)
        if found is not None:
            yield found
            return


def _found(subject: Subject, training: bool) -> Iterator[AuditFinding]:
    """What differs from graph mode; another trace than it comes last."""
    dtype = subject.own_dtype
    graph = running(subject, dtype, training)
    if graph is None or as_before(subject, graph, training):
        return
    others: tuple[Mode, ...] = ("eager",) if draws(graph) else ("eager", "xla")
    for mode in others:  # XLA draws other random numbers
        run = running(subject, dtype, training, mode)
        gap = _gap(subject, graph, run) if run is not None else None
        if run is not None and gap is not None:
            yield _finding(subject, graph, run, gap)


def _gap(subject: Subject, graph: Running, other: Running) -> _Gap | None:
    """The largest difference, `None` where there is none at most points."""
    found = []
    for point in map(list, zip(*subject.sample(_POINTS, salt=50))):
        point = next_to(subject, point, 0, graph.dtype)  # no ties
        here, there = graph(point), other(point)
        if not here.finite or not there.finite:
            continue  # `finite` tells
        if not _same(here, graph(point)):
            return None  # random
        gap = _apart(subject, graph, point, here, there)
        found += [gap] if gap else []
    if len(found) < _AGREED:
        return None
    return max(found, key=lambda gap: abs(gap.here - gap.there))


def _same(one: Answer, other: Answer) -> bool:
    return all(map(np.array_equal, one.parts, other.parts))


def _apart(
    subject: Subject, graph: Running, point: Point, here: Answer, there: Answer
) -> _Gap | None:
    """The part of two answers that differs by more than by rounding."""
    pairs = list(zip(here.parts, there.parts))
    names = ["", *(one.name for one in subject.inputs)]
    suspect = [a.shape != b.shape or bool((a != b).any()) for a, b in pairs]
    if not any(suspect):
        return None
    steps = range(1, 1 + _STEPS)
    allowed = noise(subject, graph, point, here, steps, graph.dtype)
    step, most = epsilon(graph.dtype), here.largest
    for k in np.flatnonzero(suspect):
        a, b = pairs[k]
        if a.shape != b.shape:
            return _Gap(point, names[k], float(a.size), float(b.size))
        size = max(float(np.abs(a).max()), LEAST * most)
        off = np.abs(a - b)
        q = int(off.argmax())
        if off.flat[q] > _BEYOND * (allowed[k] + step * size):
            return _Gap(point, names[k], float(a.flat[q]), float(b.flat[q]))
    return None


def _finding(
    subject: Subject, graph: Running, run: Running, gap: _Gap
) -> AuditFinding:
    line, operation = None, ""
    if run.mode == "xla":
        line, operation = _parted(graph, run, gap.point)
    by = f"; `{operation}` is the first that differs" if operation else ""
    own = f"the gradient with respect to `{gap.of}`" if gap.of else "the value"
    said = _WORDS[run.mode].format(
        what=f"{own} is", here=gap.here, there=gap.there, by=by
    )
    return AuditFinding(
        check=_CHECKS[run.mode],
        severity="warning",
        subject=gap.of,
        message=said,
        values={"graph": gap.here, run.mode: gap.there},
        source=line or subject.source,
        advice=_ADVICE[run.mode],
    )


def _parted(
    graph: Running, run: Running, point: Point
) -> tuple[Source | None, str]:
    """The first operation that computes something else under XLA."""
    asked = [
        tensor
        for operation in graph.graph.get_operations()
        for tensor in operation.outputs
        if tensor.dtype.is_floating or tensor.dtype.is_integer
    ]
    inputs = {tensor.name for tensor in graph.graph.inputs}
    asked = [tensor for tensor in asked if tensor.name not in inputs]
    try:
        found = [
            program_of(each).run(_named(each, asked), each.given(point))[0]
            for each in (graph, run)
        ]
    except (tf.errors.OpError, KeyError, ValueError):
        return None, ""  # XLA does not compile all that is asked for
    for tensor, here, there in zip(asked, *found):
        if _differ(here.numpy(), there.numpy(), epsilon(graph.dtype)):
            return users_line(tensor.op), str(tensor.op.type)
    return None, ""


def _named(run: Running, tensors: Sequence[Any]) -> list[Any]:
    """The same tensors in another graph of the same."""
    graph = run.graph
    return [graph.get_tensor_by_name(tensor.name) for tensor in tensors]


def _differ(here: Any, there: Any, step: float) -> bool:
    a, b = here.astype(np.float64), there.astype(np.float64)
    size = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return bool((np.abs(a - b) > 1e4 * step * size).any())
