"""Which line of a backward pass of the user's own makes a gradient what it is.

Followed back from the gradient, what only moves numbers about (a sum over
examples, a reshape) is passed by, and so is a product with a factor of the
backward pass' own, whose line says what the derivative is meant to be.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Sequence
from typing import Any

from gradwatch.provenance import line_of
from gradwatch.reports import Source

__all__ = ["MOVES", "blamed", "returned_at", "users_line"]

MOVES = (
    "BroadcastTo",
    "Cast",
    "ConcatV2",
    "ExpandDims",
    "Identity",
    "Pack",
    "Reshape",
    "Squeeze",
    "StridedSlice",
    "Sum",
    "Tile",
    "Transpose",
    "Unpack",
)
"""What only moves numbers about, or adds them."""

_SIGN = "Neg"


def blamed(
    slope: Any, upstream: Sequence[Any], first: int, *, sign: bool
) -> Source | None:
    """Returns the line to blame for a gradient, `None` if none is the user's.

    Args:
        slope: the gradient, a tensor of the graph.
        upstream: the tensors that the backward pass was called with.
        first: number of the first operation of the backward pass.
        sign: whether nothing but its sign is wrong.
    """
    walk = _Walk(upstream, first, MOVES if sign else (*MOVES, _SIGN))
    made = walk.made(slope.op)
    here = walk.line(made) or walk.line(slope.op)
    queue = [made]
    for operation in queue:
        for tensor in operation.inputs:
            given = walk.made(tensor.op)
            if not walk.inside(given):
                continue
            other = walk.line(given)
            if walk.follows(given):
                queue += [given] if other == here else []
            elif other and other != here and _several(tensor):
                return other
    return here


def users_line(operation: Any) -> Source | None:
    """Returns the line that made an operation, if it is the user's own."""
    line = line_of(operation)
    if line is None or "site-packages" in line.file:
        return None
    return Source(*line)


def returned_at(line: Source) -> Source:
    """Returns the last `return` of the function that a line is in.

    Args:
        line: of a backward pass.

    Returns:
        The line itself where its file cannot be read as Python.
    """
    lines = linecache.getlines(line.file)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return line
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.lineno <= line.line <= (node.end_lineno or 0)
    ]
    if not around:
        return line
    inner = max(around, key=lambda node: node.lineno)
    ends = [n.lineno for n in ast.walk(inner) if isinstance(n, ast.Return)]
    if not ends:
        return line
    last = max(ends)
    return Source(line.file, last, inner.name, lines[last - 1].strip())


class _Walk:
    """The operations of one call of a backward pass."""

    def __init__(
        self, upstream: Sequence[Any], first: int, moves: Sequence[str]
    ) -> None:
        self._given = {tensor.op for tensor in upstream}
        self._first, self._moves = first, moves
        self._known: dict[Any, bool] = {}

    def inside(self, operation: Any) -> bool:
        """Whether the backward pass made an operation."""
        return operation._id >= self._first and operation not in self._given

    def made(self, operation: Any) -> Any:
        """The operation that computes what one moves about."""
        while operation.type in self._moves and self.inside(operation):
            own = [t.op for t in operation.inputs if t.dtype.is_floating]
            own = [op for op in own if self.follows(op)] or own
            if not own or not self.inside(own[0]):
                break
            operation = own[0]
        return operation

    def line(self, operation: Any) -> Source | None:
        """The user's line of an operation of the backward pass."""
        return users_line(operation) if self.inside(operation) else None

    def follows(self, operation: Any) -> bool:
        """Whether an operation is computed from what comes from behind."""
        if operation not in self._known:
            given = operation in self._given
            self._known[operation] = given or (
                operation._id >= self._first
                and any(self.follows(t.op) for t in operation.inputs)
            )
        return self._known[operation]


def _several(tensor: Any) -> bool:
    """Whether a tensor is not a single number, which is what it is."""
    return bool(tensor.shape.num_elements() != 1)
