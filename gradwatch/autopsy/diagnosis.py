"""An autopsy: the step once more, down to the operation that went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.autopsy.advice import advice
from gradwatch.autopsy.links import forward_of
from gradwatch.autopsy.origin import Origin, find_origin, origin_behind
from gradwatch.autopsy.precision import finite_in_float64
from gradwatch.autopsy.probe import Probe, Program
from gradwatch.autopsy.report import Autopsy, Phase, Source
from gradwatch.autopsy.trace import Traced, trace
from gradwatch.capture.anatomy import layer_path
from gradwatch.provenance import layer_of, line_of
from gradwatch.provenance.paths import FUNCTIONS

__all__ = ["diagnose"]

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
        What was found. In the run's own mode first (`model.jit_compile`), then
        in the other one.

    Raises:
        Exception: what the model's train step raises.
    """
    batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
    traced = trace(model, batch)
    leaves = tf.nest.flatten(batch, expand_composites=True)
    captured = {id(inside): out for out, inside in traced.graph.captures}
    given = [
        *leaves,
        *(captured[id(t)] for t in traced.graph.inputs[len(leaves) :]),
    ]
    own = bool(model.jit_compile)
    for jit in (own, not own):
        found = _found(traced, given, jit)
        if found is not None:
            told = _Case(model, traced, found[0], len(leaves)).told(found[1])
            return replace(told, mode=_MODES[jit], reproducible=jit == own)
    return Autopsy("not reproducible")


def _found(
    traced: Traced, given: Sequence[Any], jit: bool
) -> tuple[Probe, Origin] | None:
    """Returns what a step computes in one mode, and the origin if any."""
    try:
        probe = Probe(Program(traced.graph, jit), given)
    except tf.errors.OpError:  # XLA does not compile this step
        return None
    for targets in (traced.losses, traced.ends()):
        origin = find_origin(probe, targets)
        if origin is None:
            continue
        # A loop's lists cannot be taken out of what XLA has compiled.
        closed = jit and origin.tensor.op.type in FUNCTIONS
        return (closed and _found(traced, given, False)) or (probe, origin)
    return None


class _Case:
    """An origin in words.

    Args:
        model: the model.
        traced: its step.
        probe: what the step computed.
        leaves: how many of its inputs are the batch.
    """

    def __init__(
        self, model: Any, traced: Traced, probe: Probe, leaves: int
    ) -> None:
        layers = model._flatten_layers(include_self=False)
        self._layers = list(map(layer_path, layers))
        self._traced, self._probe, self._leaves = traced, probe, leaves

    def told(self, origin: Origin) -> Autopsy:
        """Returns what there is to say of an origin."""
        forward = forward_of(origin.tensor.op)
        if forward is not None:
            origin = origin_behind(origin, forward) or origin
        operation = origin.tensor.op
        forward = forward_of(operation)
        phase: Phase = "forward" if forward is None else "backward"
        batch = self._traced.graph.inputs[: self._leaves]
        if any(origin.tensor is leaf for leaf in batch):
            phase = "data"
        named = operation if forward is None else forward
        found = Autopsy(
            "model",
            phase=phase,
            operation=named.type,
            layer=self._layer(named, origin),
            source=self._line(operation, named, origin),
            samples=self._samples(origin),
            inputs=list(self._inputs(origin, named)),
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
            layer = layer_of(known, self._layers)
            if layer:
                return layer
        return ""

    def _line(
        self, operation: Any, forward: Any, origin: Origin
    ) -> Source | None:
        for known in (operation, forward, *reversed(origin.outer)):
            line = line_of(known)
            if line is not None:
                return Source(line.file, line.line, line.function, line.code)
        return None

    def _component(self) -> str:
        for component in self._traced.components:
            if component.value.name in self._probe.nonfinite:
                return component.name
        return ""

    def _samples(self, origin: Origin) -> list[int]:
        """Examples at which the origin is not finite."""
        shapes = [t.shape for t in self._probe.inputs[: self._leaves]]
        rows = {shape[0] for shape in shapes if shape.rank}
        value = origin.probe.values([origin.tensor])[0]
        if not value.dtype.is_floating or not value.shape.rank:
            return []
        if value.shape[0] not in rows:
            return []
        bad = ~np.isfinite(_array(value))
        each = bad.reshape(len(bad), -1).any(1)
        return list(map(int, np.flatnonzero(each)[:_MOST_SAMPLES]))

    def _inputs(self, origin: Origin, named: Any) -> Iterator[str]:
        """Describes the inputs of the operation, where they can be seen."""
        graph = origin.probe.program.graph
        seen = named if named.graph is graph else origin.tensor.op
        floats = [t for t in seen.inputs if t.dtype.is_floating]
        result = _array(origin.probe.values([origin.tensor])[0])
        for tensor, value in zip(floats, origin.probe.values(floats)):
            yield _described(tensor.dtype.name, _array(value), result)


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
