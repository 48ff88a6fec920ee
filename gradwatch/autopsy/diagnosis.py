"""An autopsy: the step once more, down to the operation that went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.autopsy.advice import advice
from gradwatch.autopsy.limit import Limit
from gradwatch.autopsy.links import forward_of
from gradwatch.autopsy.origin import Origin, find_origin, origin_behind
from gradwatch.autopsy.precision import finite_in_float64
from gradwatch.autopsy.probe import Probe, Program
from gradwatch.autopsy.trace import Traced, trace
from gradwatch.provenance import layer_of, line_of
from gradwatch.reports import Autopsy, Phase, Source

__all__ = ["described", "diagnose", "explain", "source_of", "tensors"]

_MOST_SAMPLES = 16
_MODES = {False: "graph", True: "xla"}
_WEIGHTS = (
    "Go back to weights from before: the update that made them infinite or "
    "NaN came earlier, and the rate or the gradients were too large for it."
)
_DATA = (
    "Look at these examples where the data is made: missing values, division "
    "by a standard deviation of 0, a logarithm of 0."
)


def diagnose(model: Any, batch: Any) -> Autopsy:
    """Replays a step of `model` and names what was first not finite.

    The model is left as it is: neither weights nor state nor optimizer change.

    Args:
        model: a compiled `keras.Model` as it was before the step, whose
            variables exist.
        batch: what its train step is called with: a nest of arrays or tensors
            `[examples, ...]`, mostly `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        What was found, in graph mode or under XLA.

    Raises:
        Exception: what the model's train step raises.
    """
    limit = Limit()
    traced = trace(model, tensors(batch), {}, limit)
    (*_, found) = explain(traced, bool(model.jit_compile), limit)
    return found


def tensors(batch: Any) -> Any:
    """Returns a batch as a nest of eager tensors."""

    def tensor(leaf: Any) -> Any:
        return None if leaf is None else tf.convert_to_tensor(leaf)

    return tf.nest.map_structure(tensor, batch)


def explain(traced: Traced, own: bool, limit: Limit) -> Iterator[Autopsy]:
    """Names what was first not finite in a step; any thread.

    It is looked for in graph mode: XLA takes minutes to compile a large step of
    which every float is looked at. Where the run's own mode is XLA it is asked
    whether the step is not finite there as well.

    Args:
        traced: the step.
        own: whether the run's own mode is XLA.
        limit: ends it.

    Yields:
        What is known so far; the last one stands.

    Raises:
        TimeUp: the limit is reached.
    """
    failed = {}
    for jit in (False, True):
        try:
            found = _found(traced, jit, limit)
        except tf.errors.OpError as error:  # XLA does not compile this step
            limit.check()
            failed[jit] = type(error).__name__
            continue
        if found is None:
            continue
        told = _Case(traced, found[0]).told(found[1])
        yield replace(told, mode=_MODES[jit], reproducible=jit == own)
        if own and not jit and _happens(traced, limit):
            yield replace(told, mode=_MODES[own], reproducible=True)
        return
    if own in failed:
        why = f"the step cannot be replayed ({failed[own]})."
        yield Autopsy("unfinished", note=why)
    else:
        yield Autopsy("not reproducible")


def _happens(traced: Traced, limit: Limit) -> bool:
    """Whether a step is not finite under XLA."""
    ends = [*traced.losses, *traced.ends()]
    try:
        program = Program(traced.graph, True, limit)
        return not program.finite(ends, traced.given)
    except tf.errors.OpError:  # XLA does not compile this step
        limit.check()
        return False


def _found(
    traced: Traced, jit: bool, limit: Limit
) -> tuple[Probe, Origin] | None:
    """Returns what a step computes in one mode, and the origin if any.

    Raises:
        tf.errors.OpError: it cannot be run so.
    """
    probe = Probe(Program(traced.graph, jit, limit), traced.given)
    for targets in (traced.losses, traced.ends()):
        origin = find_origin(probe, targets)
        if origin is not None:
            return probe, origin
    return None


class _Case:
    """An origin in words.

    Args:
        traced: the step.
        probe: what it computed.
    """

    def __init__(self, traced: Traced, probe: Probe) -> None:
        self._traced, self._probe = traced, probe

    def told(self, origin: Origin) -> Autopsy:
        """Returns what there is to say of an origin."""
        forward = forward_of(origin.tensor.op)
        if forward is not None:
            origin = origin_behind(origin, forward) or origin
        operation = origin.tensor.op
        forward = forward_of(operation)
        named = operation if forward is None else forward
        origin.probe.values([origin.tensor, *_floats(origin, named)])
        phase: Phase = "forward" if forward is None else "backward"
        batch = self._traced.graph.inputs[: self._traced.leaves]
        if any(origin.tensor is leaf for leaf in batch):
            phase = "data"
        found = Autopsy(
            "model",
            phase=phase,
            operation=named.type,
            layer=self._layer(named, origin),
            source=source_of(operation, named, origin),
            samples=self._samples(origin),
            inputs=list(described(origin, named)),
            component=self._component(),
            turn=origin.turn,
        )
        return self._judged(found, origin)

    def _judged(self, found: Autopsy, origin: Origin) -> Autopsy:
        if found.phase == "data":
            return replace(
                found, verdict="data", operation="", advice=_DATA, inputs=()
            )
        if found.operation in ("ReadVariableOp", "Placeholder"):
            return replace(
                found, verdict="optimizer", phase="update", advice=_WEIGHTS
            )
        ends = [*self._traced.losses, *self._traced.ends()]
        if not finite_in_float64(self._probe, ends):
            return replace(found, advice=advice(found.operation))
        narrow = origin.tensor.dtype.name
        said = advice(found.operation, narrow)
        return replace(found, verdict="precision", advice=said)

    def _layer(self, operation: Any, origin: Origin) -> str:
        for known in (operation, *reversed(origin.outer)):
            layer = layer_of(known, self._traced.layers)
            if layer:
                return layer
        return ""

    def _component(self) -> str:
        for component in self._traced.components:
            if component.value.name in self._probe.nonfinite:
                return component.name
        return ""

    def _samples(self, origin: Origin) -> list[int]:
        """Examples at which the origin is not finite."""
        shapes = [t.shape for t in self._probe.inputs[: self._traced.leaves]]
        rows = {shape[0] for shape in shapes if shape.rank}
        value = origin.probe.values([origin.tensor])[0]
        if not value.dtype.is_floating or not value.shape.rank:
            return []
        if value.shape[0] not in rows:
            return []
        bad = ~np.isfinite(_array(value))
        each = bad.reshape(len(bad), -1).any(1)
        return list(map(int, np.flatnonzero(each)[:_MOST_SAMPLES]))


def source_of(operation: Any, forward: Any, origin: Origin) -> Source | None:
    """Returns the user's line to blame, `None` where there is none.

    Args:
        operation: the origin's.
        forward: the one whose derivative it computes; itself if there is none.
        origin: what is inside of what.
    """
    for known in (operation, forward, *reversed(origin.outer)):
        line = line_of(known)
        if line is not None:
            return Source(line.file, line.line, line.function, line.code)
    return None


def described(origin: Origin, named: Any) -> Iterator[str]:
    """Yields a sentence on each input of an operation that can be seen.

    Args:
        origin: what was first not finite.
        named: its operation, or the one whose derivative it is.
    """
    floats = _floats(origin, named)
    result = _array(origin.probe.values([origin.tensor])[0])
    for tensor, value in zip(floats, origin.probe.values(floats)):
        yield _described(tensor.dtype.name, _array(value), result)


def _floats(origin: Origin, named: Any) -> list[Any]:
    """The inputs of an operation, or of the origin's, in the origin's graph."""
    graph = origin.probe.program.graph
    seen = named if named.graph is graph else origin.tensor.op
    return [t for t in seen.inputs if t.dtype.is_floating]


def _array(value: Any) -> Any:
    """A float64 array of a tensor, empty where it has no numbers."""
    if not value.dtype.is_floating:
        return np.zeros(0)
    return tf.cast(value, tf.float64).numpy()


def _described(dtype: str, value: Any, result: Any) -> str:
    shape = list(value.shape)
    finite = value[np.isfinite(value)]
    said = f"{dtype} {shape}"
    if finite.size:
        said += f", from {finite.min():.4g} to {finite.max():.4g}"
    zeros = np.argwhere(value == 0)
    if len(zeros):
        places = ", ".join(str(place.tolist()) for place in zeros[:3])
        exact = "exact zero" if len(zeros) == 1 else "exact zeros"
        said += f", {len(zeros)} {exact}" + (f" at {places}" if shape else "")
    bad = np.argwhere(~np.isfinite(result))
    if value.shape == result.shape and len(bad) and len(shape):
        worst = tuple(bad[0])
        said += f"; {value[worst]:.4g} at {list(map(int, worst))}"
    return f"Input {said}."
