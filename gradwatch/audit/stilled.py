"""The operation from which on a value no longer follows an input.

A sigmoid that is saturated, a softmax over one number: each has a derivative,
which is 0. So an input is moved a little, and the first operation is looked for
that is given other numbers by that and returns the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradwatch.audit.backward import users_line
from gradwatch.audit.culprit import program_of
from gradwatch.audit.running import BACKWARD, Point, Running
from gradwatch.audit.traced import chosen
from gradwatch.provenance.paths import custom_gradient
from gradwatch.reports import Source

__all__ = ["stilled_at"]

_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


class _Moved:
    """Whether operations of a graph moved at pairs of points.

    Args:
        run: a subject, traced.
        pairs: points, and the same with one input moved.
    """

    def __init__(self, run: Running, pairs: Sequence[tuple[Point, Point]]):
        self._operations = [
            operation
            for operation in run.graph.get_operations()
            if BACKWARD not in operation.name
        ]
        every = [
            tensor
            for operation in self._operations
            for tensor in operation.outputs
            if tensor.dtype.is_floating
            or tensor.dtype.is_integer
            or tensor.dtype.is_bool
        ]
        inputs = {tensor.name for tensor in run.graph.inputs}
        asked = [tensor for tensor in every if tensor.name not in inputs]
        self._moved: dict[str, int] = {}
        self._pairs = len(pairs)
        for pair in pairs:
            given = [run.given(point) for point in pair]
            found = [program_of(run).run(asked, each)[0] for each in given]
            numbers = zip([*run.graph.inputs, *asked], *(
                [*inside, *values] for inside, values in zip(given, found)
            ))  # fmt: skip
            for tensor, before, after in numbers:
                if tensor.dtype.name in ("resource", "variant"):
                    continue
                moved = bool((before.numpy() != after.numpy()).any())
                known = self._moved.get(tensor.name, 0)
                self._moved[tensor.name] = known + moved

    def ends(self) -> list[Any]:
        """Operations that moved inputs end at; those of floats first."""
        found = [
            operation
            for operation in self._operations
            if operation.type not in _SHAPES
            and self._most(operation.inputs)
            and not any(map(self._any, _results(operation)))
            and any(t.name in self._moved for t in operation.outputs)
        ]
        return sorted(found, key=lambda op: not _float(op))

    def _any(self, tensor: Any) -> bool:
        return self._moved.get(tensor.name, 0) > 0

    def _most(self, tensors: Sequence[Any]) -> bool:
        counts = [self._moved.get(tensor.name, 0) for tensor in tensors]
        return 2 * max(counts, default=0) > self._pairs


def stilled_at(
    run: Running, pairs: Sequence[tuple[Point, Point]]
) -> tuple[Source | None, str, int]:
    """Returns where a value no longer follows an input.

    Args:
        run: a subject, traced.
        pairs: points, and the same with that input moved a little.

    Returns:
        The user's line, `None` if it is not found; the operation's type; and
        its number among those of backward passes of the user's, or -1.
    """
    ends = _Moved(run, pairs).ends()
    ends.sort(key=lambda op: not custom_gradient(op))
    for operation in ends:
        line, own = users_line(operation), custom_gradient(operation)
        if line is not None or own:
            every = chosen(run.graph, custom_gradient) if own else []
            number = every.index(operation) if own else -1
            return line, str(operation.type), number
    return None, "", -1


def _results(operation: Any) -> list[Any]:
    """Of what a backward pass belongs to, the results without arguments."""
    outputs = list(operation.outputs)
    if custom_gradient(operation):
        return [
            tensor
            for tensor in outputs
            if any(BACKWARD not in user.name for user in tensor.consumers())
        ]
    return outputs


def _float(operation: Any) -> bool:
    return any(tensor.dtype.is_floating for tensor in operation.outputs)
