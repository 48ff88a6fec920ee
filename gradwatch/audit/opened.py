"""Gradients without what stops or changes them in a graph.

Read in tensorflow 2.21: `python/framework/registry.py`,
`python/ops/gradients_util.py` (_GradientsHelper),
`python/ops/custom_gradient.py` (_graph_mode_decorator: an `IdentityN` of
results and arguments).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tensorflow.python.framework import ops

from gradwatch.provenance.paths import custom_gradient, operations

__all__ = ["opened_at"]

_STOP = "StopGradient"


@contextlib.contextmanager
def opened_at(graph: Any, opened: Sequence[Any]) -> Iterator[None]:
    """Inside, some operations hand gradients through, in inner graphs too.

    Args:
        graph: in which `tf.gradients` is asked.
        opened: those of it: a `StopGradient`, or what a `tf.custom_gradient`
            stands for.
    """
    known = ops.gradient_registry._registry
    names = {
        operation.get_attr("_gradient_op_type").decode()
        for operation in operations(graph)
        if custom_gradient(operation)
    }
    before = {name: known[name] for name in (_STOP, *names)}
    for name, entry in before.items():
        known[name] = {**entry, "type": _either(entry["type"], opened)}
    try:
        yield
    finally:
        known.update(before)


def _either(own: Any, opened: Sequence[Any]) -> Any:
    def gradient(operation: Any, *upstream: Any) -> Any:
        if not any(operation is each for each in opened):
            return own(operation, *upstream)
        return upstream if len(upstream) > 1 else upstream[0]

    return gradient
