"""The first operation that made NaN or Inf of finite numbers.

Followed back from what is bad at the end, through tensors that are not finite,
to operations whose inputs all are. Where an operation makes NaN of Inf, the
maker of the Inf is to blame, unless that was a mask, which may well be -inf.
What a function, a branch or a loop runs is looked into in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradwatch.autopsy.probe import Flags, Probe, Program
from gradwatch.provenance.paths import FUNCTIONS, called_graphs

__all__ = ["Origin", "before", "find_origin", "masked_by", "origin_behind"]

_LITERALS = ("Const", "Fill")
_READS = ("ReadVariableOp", "ResourceGather")
_MASKED = (
    "LogSoftmax",
    "Softmax",
    "SoftmaxCrossEntropyWithLogits",
    "SparseSoftmaxCrossEntropyWithLogits",
)
"""Operations that masks of -inf are made for; NaN where all is masked."""

_MOST_TURNS = 10_000


class Origin(NamedTuple):
    """An operation, and the run of its graph in which it went wrong.

    Attributes:
        tensor: the result of it that is not finite.
        probe: what its graph computed.
        outer: the calls that it is inside of, outermost first.
        turn: how often the innermost loop around it had run before; -1 where
            it is in none.
    """

    tensor: Any
    probe: Probe
    outer: tuple[Any, ...] = ()
    turn: int = -1


def find_origin(probe: Probe, targets: Sequence[Any]) -> Origin | None:
    """Returns the first origin of what is not finite in `targets`, if any.

    Args:
        probe: of a graph.
        targets: tensors of it.
    """
    bad = [t for t in targets if _flags(probe, t) or _takes_bad(probe, t)]
    found = list(_origins(probe, bad))
    if not found:
        return None
    first = min(found, key=lambda tensor: tensor.op._id)
    return _inside(Origin(first, probe))


def origin_behind(origin: Origin, forward: Any) -> Origin | None:
    """Returns where Inf began that the forward pass has swallowed, if any.

    A derivative may be infinite since what it is taken at comes of Inf: the
    logarithm of a sum of exponentials of -inf, say.

    Args:
        origin: in the backward pass.
        forward: the operation whose derivative it is.
    """
    probe = origin.probe
    if forward.graph is not probe.program.graph:
        return None
    behind = [t for op in before(forward) for t in op.outputs]
    bad = [t for t in behind if _flags(probe, t)]
    makers = [t for t in _origins(probe, bad) if _depends_on_weights(t.op)]
    if not makers:
        return None
    return _inside(Origin(min(makers, key=lambda t: t.op._id), probe))


def masked_by(origin: Origin) -> Origin | None:
    """Returns what made the -inf of a mask in which all is masked, if any.

    A written -inf is a mask and no fault; one that was computed, as the
    logarithm of 0 say, can be kept finite where it is made.
    """
    operation, probe = origin.tensor.op, origin.probe
    if operation.type not in _MASKED:
        return None
    bad = [t for t in operation.inputs if _flags(probe, t)]
    makers = [t for t in _origins(probe, bad) if t.op.type not in _LITERALS]
    if not makers or any(_given(t.op) for t in makers):
        return None
    return _inside(Origin(min(makers, key=lambda t: t.op._id), probe))


def _given(operation: Any) -> bool:
    return not operation.inputs or operation.type in _READS


def _flags(probe: Probe, tensor: Any) -> Flags | None:
    return probe.nonfinite.get(tensor.name)


def _takes_bad(probe: Probe, tensor: Any) -> bool:
    """Whether a list of tensors is given one that is not finite.

    What a list holds cannot be seen from outside.
    """
    is_list = tensor.dtype == tf.variant
    return is_list and any(_flags(probe, t) for t in tensor.op.inputs)


def _origins(probe: Probe, tensors: Sequence[Any]) -> Iterator[Any]:
    """Yields the tensors at which what is not finite begins."""
    stack, seen = list(tensors), {id(t) for t in tensors}
    while stack:
        tensor = stack.pop()
        follow = _carriers(probe, tensor)
        if not follow or _blameless(probe, tensor, follow):
            yield tensor
            continue
        new = [t for t in follow if id(t) not in seen]
        seen |= {id(t) for t in new}
        stack += new


def _carriers(probe: Probe, tensor: Any) -> list[Any]:
    """The inputs that a tensor's NaN or Inf can come from."""
    given = list(tensor.op.inputs)
    bad = [t for t in given if _flags(probe, t)]
    nan = [t for t in bad if probe.nonfinite[t.name].nan]
    own = _flags(probe, tensor)
    if nan and own and own.nan:
        return nan
    calls = tensor.op.type in FUNCTIONS
    lists = [t for t in given if t.dtype == tf.variant and not calls]
    return bad or lists


def _blameless(probe: Probe, tensor: Any, infinite: Sequence[Any]) -> bool:
    """Whether the Inf of which an operation makes NaN is as it should be."""
    own = _flags(probe, tensor)
    known = [_flags(probe, t) for t in infinite]
    if not (own and own.nan) or any(not f or f.nan for f in known):
        return False
    makers = [t.op for t in _origins(probe, infinite)]
    if all(maker.type in _LITERALS for maker in makers):
        return True
    masked = tensor.op.type in _MASKED
    return masked and not any(map(_depends_on_weights, makers))


def _depends_on_weights(operation: Any) -> bool:
    return any(op.type in _READS for op in before(operation))


def before(operation: Any) -> set[Any]:
    """Returns all operations that one is computed from."""
    stack: list[Any] = [operation]
    seen: set[Any] = set()
    while stack:
        new = {tensor.op for tensor in stack.pop().inputs} - seen
        seen |= new
        stack += new
    return seen


def _inside(origin: Origin) -> Origin:
    """Goes into the graphs that an operation runs, as far as it can."""
    operation = origin.tensor.op
    graphs = called_graphs(operation)
    if not graphs or None in graphs.values():
        return origin
    try:
        given = origin.probe.values(list(operation.inputs))
        found = _called(graphs, given, origin)
    except tf.errors.OpError:  # lists of tensors, under XLA
        origin.probe.program.limit.check()
        return origin
    if found is None:
        return origin
    calls = *origin.outer, operation
    return found._replace(outer=(*calls, *found.outer))


def _called(
    graphs: dict[str, Any], given: Sequence[Any], origin: Origin
) -> Origin | None:
    if "f" in graphs:
        return _run(graphs["f"], given, origin)
    if "body" in graphs:
        return _loop(graphs["body"], given, origin)
    if "then_branch" in graphs:
        chosen = "then_branch" if bool(given[0]) else "else_branch"
        return _run(graphs[chosen], given[1:], origin)
    return None


def _run(graph: Any, given: Sequence[Any], origin: Origin) -> Origin | None:
    known = origin.probe.program
    program = Program(graph, known.jit, known.limit)
    return find_origin(Probe(program, given), graph.outputs)


def _loop(body: Any, given: Sequence[Any], origin: Origin) -> Origin | None:
    """Runs a loop's body until something is not finite."""
    known = origin.probe.program
    program = Program(body, known.jit, known.limit)
    values = list(given)
    for turn in range(_MOST_TURNS):
        probe = Probe(program, values)
        found = find_origin(probe, body.outputs)
        if found is not None:
            return found if found.turn >= 0 else found._replace(turn=turn)
        values = probe.values(body.outputs)
    return None
