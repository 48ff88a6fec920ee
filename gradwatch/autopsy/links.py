"""From an operation of the backward pass to the one whose gradient it is.

`tf.gradients` names what it makes of an operation after it. Read in tensorflow
2.21: `python/ops/gradients_util.py` (_GradientsHelper: `op.name + "_grad"`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradwatch.provenance.paths import operations

__all__ = ["forward_of"]

_MARK = "_grad/"


def forward_of(operation: Any) -> Any:
    """Returns the operation whose derivative an operation computes.

    Args:
        operation: a `tf.Operation` of a `FuncGraph`.

    Returns:
        `None` where it belongs to no derivative, or to none that is known.
    """
    known = {
        op.name: op
        for graph in _around(operation.graph)
        for op in operations(graph)
    }
    for name in _names(operation.name):
        if name in known and name != operation.name:
            return known[name]
    return None


def _names(name: str) -> Iterator[str]:
    """Yields what may be the name of the forward operation, longest first."""
    ends = [i for i in range(len(name)) if name.startswith(_MARK, i)]
    starts = [0, *(i + 1 for i, c in enumerate(name) if c == "/")]
    for end in reversed(ends):
        for start in starts:
            if start < end:
                yield name[start:end]


def _around(graph: Any) -> Iterator[Any]:
    """Yields a graph and those that it is inside of."""
    while graph is not None:
        yield graph
        graph = getattr(graph, "outer_graph", None)
