"""The same graph in float64: whether it was all a matter of precision.

Variables are copied to float64, so that they are read in functions, branches
and loops as well as outside of them. Random numbers are drawn as they were, and
cast: in float64 other ones would be drawn, and dropout would drop others.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.eager.context import context
from tensorflow.python.framework.ops import uid

from gradwatch.autopsy.copies import copied
from gradwatch.autopsy.probe import Probe, definition_of

__all__ = ["finite_in_float64"]

_DRAWS = tuple(
    before + what
    for before, what in itertools.product(
        ("Stateless", ""),
        (
            *("RandomUniform", "RandomUniformV2"),
            *("RandomNormal", "RandomNormalV2", "RandomStandardNormal"),
            *("TruncatedNormal", "TruncatedNormalV2"),
        ),
    )
)
_NARROW = (types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)


def finite_in_float64(probe: Probe, targets: Sequence[Any]) -> bool | None:
    """Says whether tensors are finite where all is computed in float64.

    Args:
        probe: of the graph, from the inputs that it is to have.
        targets: tensors of it.

    Returns:
        `None` where it cannot be run so: an operation has no float64 kernel.

    Raises:
        TimeUp: the probe's limit is reached.
    """
    program = probe.program
    try:
        definition = _widened(program.graph)
        copies = [copied(t, {}, wide=True) for t in probe.inputs]
        given = [
            _cast(t) if copy is None else copy.handle
            for t, copy in zip(probe.inputs, copies)
        ]
        run = tf.function(
            lambda *given: _finite(definition, program.graph, given, targets),
            autograph=False,
            jit_compile=program.jit,
        )
        with _known(definition.library):
            traced = run.get_concrete_function(*given)
            return bool(program.limit.call(traced, *given))
    except Exception:  # whatever TensorFlow raises
        program.limit.check()
        return None


def _widened(graph: Any) -> Any:
    """The graph's definition in float64."""
    definition = definition_of(graph)
    library = definition.library
    # TensorFlow knows functions by their names, and these ones already.
    end = f"_wide_{uid()}"
    old = [function.signature.name for function in library.function]
    names = {name: name + end for name in old}
    _widen_all(definition.node)
    for function in library.function:
        _widen_all(function.node_def, function.ret)
    for node in _nodes(definition):
        _rename(node, names)
    for function in library.function:
        signature = function.signature
        signature.name = names[signature.name]
        for argument in (*signature.input_arg, *signature.output_arg):
            argument.type = _wide(argument.type)
    for gradient in library.gradient:
        gradient.function_name = names[gradient.function_name]
        gradient.gradient_func = names[gradient.gradient_func]
    return definition


@contextlib.contextmanager
def _known(library: Any) -> Iterator[None]:
    """TensorFlow can run the functions of a library meanwhile."""
    try:
        for function in library.function:
            context().add_function_def(function)
        yield
    finally:
        for function in library.function:
            if context().has_function(function.signature.name):
                context().remove_function(function.signature.name)


def _nodes(definition: Any) -> Iterator[Any]:
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def _finite(
    definition: Any, graph: Any, given: Sequence[Any], targets: Sequence[Any]
) -> Any:
    """Bool scalar, whether all of `targets` are finite."""
    used = {i.split(":")[0] for node in definition.node for i in node.input}
    found = tf.graph_util.import_graph_def(
        definition,
        input_map={
            t.name: value
            for t, value in zip(graph.inputs, given)
            if t.op.name in used
        },
        return_elements=[t.name for t in targets],
        name="wide",
    )
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(t)) for t in found])


def _cast(tensor: Any) -> Any:
    return tf.cast(tensor, tf.float64) if tensor.dtype.is_floating else tensor


def _wide(kind: int) -> int:
    return types_pb2.DT_DOUBLE if kind in _NARROW else kind


def _widen_all(nodes: Any, results: Any = None) -> None:
    """Makes a graph's operations ones of float64.

    Args:
        nodes: `NodeDef`s, to which some are added.
        results: where it is a function's, name -> tensor that is returned.
    """
    drawn = [n for n in nodes if n.op in _DRAWS]
    drawn = [n for n in drawn if n.attr["dtype"].type in _NARROW]
    kept = {node.name for node in drawn}
    # A function's tensors are named after an operation's results.
    others = {f"{name}:output:0": f"{name}:y:0" for name in kept}
    for node in nodes:
        if node.name not in kept:
            _widen(node)
        node.input[:] = [others.get(name, name) for name in node.input]
    for key, name in (results or {}).items():
        results[key] = others.get(name, name)
    for node in drawn:
        cast = nodes.add(name=node.name, op="Cast")
        cast.attr["SrcT"].type = node.attr["dtype"].type
        cast.attr["DstT"].type = types_pb2.DT_DOUBLE
        node.name += "/narrow"
        # That of a graph has one result, which needs no name.
        cast.input.append(node.name + ("" if results is None else ":output:0"))


def _widen(node: Any) -> None:
    """Makes an operation, or a constant, one of float64."""
    if node.op == "Const" and node.attr["dtype"].type in _NARROW:
        value = tf.make_ndarray(node.attr["value"].tensor).astype(np.float64)
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    for attribute in node.attr.values():
        if attribute.WhichOneof("value") == "type":
            attribute.type = _wide(attribute.type)
        for i, kind in enumerate(attribute.list.type):
            attribute.list.type[i] = _wide(kind)


def _rename(node: Any, names: Mapping[str, str]) -> None:
    """Makes an operation call the functions of other names."""
    node.op = names.get(node.op, node.op)
    for attribute in node.attr.values():
        called = [*attribute.list.func]
        if attribute.WhichOneof("value") == "func":
            called.append(attribute.func)
        for function in called:
            function.name = names.get(function.name, function.name)
