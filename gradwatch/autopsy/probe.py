"""Runs a step's graph and looks at everything that it computes.

The graph is imported into a function of its own, which can be asked for any
tensor in it, in graph mode and under XLA. Operations that would change a
variable are left out, so nothing of the model changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradwatch.autopsy.copies import copied
from gradwatch.autopsy.limit import Limit

__all__ = ["Flags", "Probe", "Program", "definition_of"]

_ASSIGNS = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparse")


class Flags(NamedTuple):
    """What a tensor holds that is not finite.

    Attributes:
        nan: whether there is NaN in it.
        inf: whether there is Inf in it.
    """

    nan: bool
    inf: bool


class Program:
    """A graph that can be run from given inputs, for any tensor in it.

    Args:
        graph: a `FuncGraph`.
        jit: whether XLA compiles it.
        limit: ends it.

    Attributes:
        graph: the same.
        jit: the same.
        limit: the same.
        floats: its float tensors, in the order of their operations.
    """

    def __init__(self, graph: Any, jit: bool, limit: Limit) -> None:
        limit.check()
        self.graph, self.jit, self.limit = graph, jit, limit
        self._definition = definition_of(graph)
        kept = {node.name for node in self._definition.node}
        self._assigns = any(
            node.op.startswith(_ASSIGNS)
            for function in self._definition.library.function
            for node in function.node_def
        )
        self.floats = [
            tensor
            for operation in graph.get_operations()
            if operation.name in kept
            for tensor in operation.outputs
            if tensor.dtype.is_floating
        ]
        self._functions: dict[Any, Any] = {}
        self._kept: list[Any] = []  # variables that results point to

    def run(
        self, tensors: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[list[Any], Any]:
        """Returns tensors of the graph run from `inputs`, and what is bad.

        All floats are looked at each time: so TensorFlow fuses no operations,
        and two runs compute the same.

        Returns:
            The tensors, and bool `[len(floats), 2]`: whether each of `floats`
            holds NaN, whether Inf.
        """
        names = tuple(tensor.name for tensor in tensors)
        if names not in self._functions:
            traced = tf.function(
                lambda *given: self._traced(names, given),
                autograph=False,
                jit_compile=self.jit,
            )
            self._functions[names] = traced.get_concrete_function(*inputs)
        given, copies = self._given(inputs)
        found, flags = self.limit.call(self._functions[names], *given)
        if any(tensor.dtype == tf.resource for tensor in tensors):
            self._kept += copies
        return found, flags

    def finite(self, tensors: Sequence[Any], inputs: Sequence[Any]) -> bool:
        """Returns whether tensors of the graph are, run from `inputs`."""

        def check(*given: Any) -> Any:
            found = self._imported([tensor.name for tensor in tensors], given)
            each = [tf.reduce_all(tf.math.is_finite(t)) for t in found]
            return tf.reduce_all(each)

        traced = tf.function(check, autograph=False, jit_compile=self.jit)
        function = traced.get_concrete_function(*inputs)
        given, _copies = self._given(inputs)
        return bool(self.limit.call(function, *given))

    def _given(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The inputs of one run, and the variables that were made for it.

        What functions assign (a seed, statistics) is not for the next run.
        """
        copies = [copied(t, {}) if self._assigns else None for t in inputs]
        given = [t if c is None else c.handle for t, c in zip(inputs, copies)]
        return given, copies

    def _traced(self, names: Sequence[str], given: Sequence[Any]) -> Any:
        every = [tensor.name for tensor in self.floats]
        found = self._imported([*names, *every], given)
        return found[: len(names)], _flags(found[len(names) :], self.jit)

    def _imported(self, names: Sequence[str], given: Sequence[Any]) -> Any:
        """The tensors of these names, in the graph being built."""
        used = {name for node in self._definition.node for name in node.input}
        known = {
            tensor.name: value
            for tensor, value in zip(self.graph.inputs, given)
            if tensor.op.name in used
        }
        return tf.graph_util.import_graph_def(
            self._definition,
            input_map=known,
            return_elements=list(names),
            name="replayed",
        )


class Probe:
    """What a graph computes from given inputs.

    Args:
        program: runs it.
        inputs: eager tensors, as many as the graph has inputs.

    Attributes:
        program: the same.
        inputs: the same.
        nonfinite: name of a tensor -> its flags; only of those that hold NaN
            or Inf.

    Raises:
        Exception: what TensorFlow raises where it cannot run the graph so.
    """

    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self.program = program
        self.inputs = list(inputs)
        given = [
            (tensor, value)
            for tensor, value in zip(program.graph.inputs, self.inputs)
            if tensor.dtype.is_floating
        ]
        inside = program.run([], self.inputs)[1].numpy()
        outside = _flags([value for _, value in given], False).numpy()
        tensors = [*program.floats, *(tensor for tensor, _ in given)]
        self.nonfinite = {
            tensor.name: Flags(bool(nan), bool(inf))
            for tensor, (nan, inf) in zip(tensors, [*inside, *outside])
            if nan or inf
        }
        self._known = {
            tensor.name: value
            for tensor, value in zip(program.graph.inputs, self.inputs)
        }

    def values(self, tensors: Sequence[Any]) -> list[Any]:
        """Returns what tensors of the graph are, as eager tensors.

        The graph is made once more for those that were not asked for before.
        """
        asked = [t for t in tensors if t.name not in self._known]
        found = self.program.run(asked, self.inputs)[0] if asked else []
        self._known |= {t.name: v for t, v in zip(asked, found)}
        return [self._known[t.name] for t in tensors]


def _flags(tensors: Sequence[Any], jit: bool) -> Any:
    """Bool `[N, 2]`: whether each tensor holds NaN, whether Inf.

    One operation a tensor, which XLA does not know: `[5]` with its counts of
    -Inf, Inf and NaN at the end (read in tensorflow 2.21,
    `core/ops/debug_ops.cc`, CONCISE_HEALTH).
    """
    if not tensors:
        return tf.zeros([0, 2], tf.bool)
    if jit:
        rows = [
            [
                tf.reduce_any(tf.math.is_nan(tensor)),
                tf.reduce_any(tf.math.is_inf(tensor)),
            ]
            for tensor in tensors
        ]
        return tf.stack(rows)
    counts = [
        tf.raw_ops.DebugNumericSummaryV2(
            input=tensor, output_dtype=tf.float64, tensor_debug_mode=3
        )
        for tensor in tensors
    ]
    known = tf.reshape(tf.stack(counts), [-1, 5]) > 0
    return tf.stack([known[:, 4], known[:, 2] | known[:, 3]], 1)


def definition_of(graph: Any) -> Any:
    """Returns a graph's definition, without inputs and what it would assign."""
    definition = graph.as_graph_def()
    given = {tensor.op.name for tensor in graph.inputs}
    gone = {n.name for n in definition.node if n.op.startswith(_ASSIGNS)}
    kept = [n for n in definition.node if n.name not in gone | given]
    del definition.node[:]
    for node in kept:
        inputs = [i for i in node.input if i.removeprefix("^") not in gone]
        del node.input[:]
        node.input.extend(inputs)
    definition.node.extend(kept)
    return definition
