"""The same graph in float64: whether it was all a matter of precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradwatch.autopsy.probe import Probe, definition_of

__all__ = ["finite_in_float64"]

_NARROW = (types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
_READ = "ReadVariableOp"


def finite_in_float64(probe: Probe, targets: Sequence[Any]) -> bool | None:
    """Says whether tensors are finite where all is computed in float64.

    Args:
        probe: of the graph, from the inputs that it is to have.
        targets: tensors of it.

    Returns:
        `None` where it cannot be run so: an operation has no float64 kernel,
        or a variable is read inside of a function.

    Raises:
        TimeUp: the probe's limit is reached.
    """
    graph = probe.program.graph
    try:
        definition, reads = _widened(graph)
        run = tf.function(
            lambda *given: _finite(definition, reads, graph, given, targets),
            autograph=False,
            jit_compile=probe.program.jit,
        )
        traced = run.get_concrete_function(*probe.inputs)
        return bool(probe.program.limit.call(traced, *probe.inputs))
    except Exception:  # whatever TensorFlow raises
        probe.program.limit.check()
        return None


def _widened(graph: Any) -> tuple[Any, list[Any]]:
    """The graph's definition in float64, and the reads taken out of it."""
    definition = definition_of(graph)
    reads = [node for node in definition.node if node.op == _READ]
    for node in reads:
        definition.node.remove(node)
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
        signature = function.signature
        for argument in (*signature.input_arg, *signature.output_arg):
            argument.type = _wide(argument.type)
    for node in nodes:
        _widen(node)
    return definition, reads


def _finite(
    definition: Any,
    reads: Sequence[Any],
    graph: Any,
    given: Sequence[Any],
    targets: Sequence[Any],
) -> Any:
    """Bool scalar, whether all of `targets` are finite."""
    inputs = {t.op.name: value for t, value in zip(graph.inputs, given)}
    known = {name: _cast(value) for name, value in inputs.items()}
    for node in reads:
        kind = tf.as_dtype(node.attr["dtype"].type)
        handle = inputs[node.input[0]]
        known[node.name] = _cast(
            tf.raw_ops.ReadVariableOp(resource=handle, dtype=kind)
        )
    used = {i.split(":")[0] for node in definition.node for i in node.input}
    found = tf.graph_util.import_graph_def(
        definition,
        input_map={f"{k}:0": v for k, v in known.items() if k in used},
        return_elements=[t.name for t in targets],
        name="wide",
    )
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(t)) for t in found])


def _cast(tensor: Any) -> Any:
    return tf.cast(tensor, tf.float64) if tensor.dtype.is_floating else tensor


def _wide(kind: int) -> int:
    return types_pb2.DT_DOUBLE if kind in _NARROW else kind


def _widen(node: Any) -> None:
    """Makes an operation, or a constant, one of float64."""
    if node.op == _READ:  # inside of a function: its variable stays narrow
        raise ValueError(f"{node.name} is not a float64")
    if node.op == "Const" and node.attr["dtype"].type in _NARROW:
        value = tf.make_ndarray(node.attr["value"].tensor).astype(np.float64)
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    for attribute in node.attr.values():
        if attribute.WhichOneof("value") == "type":
            attribute.type = _wide(attribute.type)
        for i, kind in enumerate(attribute.list.type):
            attribute.list.type[i] = _wide(kind)
