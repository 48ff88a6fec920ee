"""Where the way from a variable to a loss has no derivative.

Followed back from the loss, a gradient ends at operations whose derivative is
none in TensorFlow; the first of them on the way from the loss to a variable is
what cuts it off. This needs the graph of a traced step; nothing is known of a
step that runs eagerly. Read in tensorflow 2.21: `python/ops/math_grad.py`,
`python/eager/backprop_util.py` (IsTrainable).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.eager.backprop_util import IsTrainable
from tensorflow.python.framework import ops

from gradwatch.provenance.lines import Line, layer_of, line_of
from gradwatch.provenance.paths import (
    Place,
    custom_gradient,
    operations,
    sources,
)
from gradwatch.records import Cut, CutKind

__all__ = ["find_cuts", "flattened"]

_NONE = ("Ceil", "Floor", "FloorDiv", "Rint", "Round", "TruncateDiv")
"""Between floats, with a registered gradient that is always `None`."""

_ZERO = ("Sign",)
"""Between floats, with a registered gradient that is always zero."""

_KINDS: dict[CutKind, tuple[str, ...]] = {
    "argmax": ("ArgMax", "ArgMin", "TopKV2"),
    "cast": ("Bitcast", "Cast"),
    "comparison": (
        "ApproximateEqual",
        "Equal",
        "Greater",
        "GreaterEqual",
        "IsFinite",
        "IsInf",
        "IsNan",
        "Less",
        "LessEqual",
        "NotEqual",
    ),
    "numpy_function": ("EagerPyFunc", "PyFunc", "PyFuncStateless"),
    "round": (*_NONE, *_ZERO),
    "stop_gradient": ("StopGradient",),
}


class _End(NamedTuple):
    """An operation at which gradients end.

    Attributes:
        place: its result.
        inputs: those that no gradient reaches through it.
        direct: whether its result is a float, which gradients do reach.
    """

    place: Place
    inputs: list[Place]
    direct: bool


def flattened(targets: Sequence[Any]) -> bool:
    """Whether what was computed up to `targets` has a slope of 0 anywhere.

    A look at the types of operations only, so that nothing needs to be followed
    in the many steps that have none. Slopes of 0 that are made on the way back
    (that of a slope of `abs`) come after the targets and do not count.
    """
    targets = [t for t in targets if tf.is_symbolic_tensor(t)]
    if not targets:
        return False  # eagerly
    before = max(t.op._id for t in targets)
    found = operations(targets[0].graph, before)
    return any(operation.type in _ZERO for operation in found)


def find_cuts(
    targets: Sequence[Any],
    handles: Mapping[str, Any],
    layers: Sequence[str] = (),
    *,
    zero: bool = False,
) -> tuple[Cut, ...]:
    """Names the operations that keep variables from a loss.

    Each variable is named once, with the cut that is nearest to the loss;
    further ones may lie behind it. None is named of a variable whose gradient
    is missing for a reason that cannot be seen in the graph.

    Args:
        targets: what was differentiated: tensors of the graph being built.
        handles: name of a variable whose gradient is missing -> its handle.
        layers: paths of the model's layers.
        zero: the gradients are not missing but zero, so that operations whose
            derivative is zero everywhere count as well; their Cuts say so.

    Returns:
        One Cut for each line and operation.

    Raises:
        Exception: what TensorFlow's internals raise where they have changed.
    """
    targets = [t for t in targets if tf.is_symbolic_tensor(t)]
    if not targets:
        return ()  # eagerly
    variables = _captured(targets[0].graph, handles)
    left = {id(tensor): name for name, tensor in variables.items()}
    ends, seen, sure = _followed([Place(t) for t in targets], zero)
    linked = {left.pop(i) for i, calls in seen if not calls and i in left}
    found = []
    # What is computed from a value before what only looks at it.
    for end in sorted(ends, key=lambda end: not end.direct):
        behind = [i for i in _leaves(end.inputs, seen) if i in left]
        if behind:
            found.append(_cut(end, [left.pop(i) for i in behind], layers))
    unused = [n for n in handles if n not in variables or n in left.values()]
    before = max(t.op._id for t in targets)
    uses: dict[CutKind, list[str]] = {} if zero else {"unused": unused}
    if sure and not zero:
        uses["unrecorded"] = [name for name in handles if name in linked]
    for kind, names in uses.items():
        for name in names:
            handle = variables.get(name)
            found.append(_use(kind, name, handle, before, layers))
    return tuple(_merged((replace(c, zero=zero) for c in found), handles))


def _captured(graph: Any, handles: Mapping[str, Any]) -> dict[str, Any]:
    """Name of each variable that a graph uses -> its handle in there."""
    inside = {id(_origin(given)): tensor for given, tensor in graph.captures}
    return {
        name: inside[id(handle)]
        for name, handle in handles.items()
        if id(handle) in inside
    }


def _origin(tensor: Any) -> Any:
    """What a graph has captured, outside of all graphs."""
    while tf.is_symbolic_tensor(tensor):
        outside = [g for g, t in tensor.graph.captures if t is tensor]
        if not outside:
            break
        tensor = outside[0]
    return tensor


def _followed(
    targets: Sequence[Place], zero: bool
) -> tuple[list[_End], set[Any], bool]:
    """Follows gradients back from `targets`.

    Returns:
        Where they end, nearest first; keys of the places that they reach; and
        whether they do so by TensorFlow's own derivatives.
    """
    ends: dict[Any, _End] = {}
    queue, seen = deque(targets), {place.key for place in targets}
    sure = True
    while queue:
        place = queue.popleft()
        operation = place.tensor.op
        if operation.type == "EagerPyFunc" or custom_gradient(operation):
            sure = False
        for source in sources(place):
            if IsTrainable(source.tensor) and _ends(place.tensor, zero):
                end = _End(place, [], IsTrainable(place.tensor))
                ends.setdefault(place.key, end).inputs.append(source)
            elif source.key not in seen:
                seen.add(source.key)
                queue.append(source)
    return list(ends.values()), seen, sure


def _ends(tensor: Any, zero: bool) -> bool:
    """Whether no gradient reaches a float through what made a tensor of it."""
    operation = tensor.op
    if not operation.inputs:  # what a function is called with
        return False
    if not IsTrainable(tensor) or operation.type in _NONE:
        return True
    if zero and operation.type in _ZERO:
        return True
    try:
        return ops.get_gradient_function(operation) is None
    except LookupError:  # a call, say; the tape itself knows what to do
        return False


def _leaves(places: Sequence[Place], seen: set[Any]) -> Iterator[int]:
    """Yields the inputs of the step's graph behind `places`, by `id`.

    Args:
        places: where to begin.
        seen: keys of what is left out, with all that is only behind it: what
            gradients reach has other ends behind it. Gets what is visited.
    """
    stack = list(places)
    while stack:
        place = stack.pop()
        if place.key in seen:
            continue
        seen.add(place.key)
        found = sources(place)
        if not found:
            yield id(place.tensor)
        stack += found


def _cut(end: _End, variables: Sequence[str], layers: Sequence[str]) -> Cut:
    operation = end.place.tensor.op
    known = (kind for kind, types in _KINDS.items() if operation.type in types)
    callers = [call.operation for call in reversed(end.place.calls)]
    return _at(
        [operation, *callers],
        Cut(
            kind=next(known, "not_differentiable"),
            operation=operation.type,
            variables=tuple(variables),
        ),
        layers,
    )


def _use(
    kind: CutKind, name: str, handle: Any, before: int, layers: Sequence[str]
) -> Cut:
    """Tells of the first use of a variable, if there is one before the loss."""
    users = [] if handle is None else handle.consumers()
    users = [user for user in users if user._id < before]
    return _at(users[:1], Cut(kind=kind, variables=(name,)), layers)


def _at(operations: Sequence[Any], cut: Cut, layers: Sequence[str]) -> Cut:
    """Adds layer and line, of the first operation that has them."""
    found = filter(None, (layer_of(each, layers) for each in operations))
    lines = filter(None, map(line_of, operations))
    line = next(lines, Line("", 0, "", ""))
    return replace(cut, layer=next(found, ""), **line._asdict())


def _merged(cuts: Iterable[Cut], names: Iterable[str]) -> Iterator[Cut]:
    """Makes one of those that differ in their variables only."""
    found: dict[Cut, set[str]] = {}
    for cut in cuts:
        found.setdefault(replace(cut, variables=()), set()).update(
            cut.variables
        )
    for cut, variables in found.items():
        ordered = tuple(name for name in names if name in variables)
        yield replace(cut, variables=ordered)
