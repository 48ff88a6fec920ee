"""Which operation made NaN or Inf, at which line: the autopsy's search.

A subject's trace (`running.py`) is probed as that of a black box's step is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from gradwatch.audit.running import Point, Running
from gradwatch.autopsy.diagnosis import described, source_of
from gradwatch.autopsy.limit import Limit
from gradwatch.autopsy.links import forward_of
from gradwatch.autopsy.origin import (
    Origin,
    before,
    find_origin,
    masked_by,
    origin_behind,
)
from gradwatch.autopsy.probe import Probe, Program
from gradwatch.reports import Source

__all__ = ["Culprit", "culprit", "program_of"]

_READS = ("Placeholder", "ReadVariableOp")


class Culprit(NamedTuple):
    """An operation that made NaN or Inf of finite numbers.

    Attributes:
        operation: its type; backward, of the one whose derivative did.
        backward: whether the derivative did.
        source: the user's line that made it, `None` if not known.
        inputs: a sentence on each number that it got.
        before: names of the operations that it is computed from; empty of one
            inside of a function.
    """

    operation: str
    backward: bool
    source: Source | None
    inputs: tuple[str, ...] = ()
    before: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[Any, ...]:
        """What is the same for the same fault."""
        return self.operation, self.source


def culprit(
    run: Running, point: Point, *, described: bool = False
) -> Culprit | None:
    """Returns what made a point's value or gradient not finite.

    Args:
        run: in the mode and dtype in which it is so; not eager.
        point: the point.
        described: whether to say what the operation got, which takes longer.

    Returns:
        `None` where it cannot be found: XLA does not compile the probe, or the
        point itself is not finite.
    """
    try:
        probe = Probe(program_of(run), run.given(point))
        found = find_origin(probe, run.results) or find_origin(
            probe, list(run.slopes.values())
        )
        return _told(found, described) if found else None
    except tf.errors.OpError:
        return None


def program_of(run: Running) -> Program:
    """Returns what looks into a subject's graph, made once."""
    if run.program is None:
        run.program = Program(run.graph, run.mode == "xla", Limit())
    found: Program = run.program
    return found


def _told(origin: Origin, told: bool) -> Culprit | None:
    origin = masked_by(origin) or origin
    forward = forward_of(origin.tensor.op)
    if forward is not None:
        origin = origin_behind(origin, forward) or origin
    operation = origin.tensor.op
    forward = forward_of(operation)
    named = operation if forward is None else forward
    if named.type in _READS:
        return None
    return Culprit(
        named.type,
        forward is not None,
        source_of(operation, named, origin),
        tuple(described(origin, named)) if told else (),
        frozenset(op.name for op in before(operation)),
    )
