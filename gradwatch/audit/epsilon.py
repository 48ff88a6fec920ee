"""Constants that float32 swallows: `1 + 1e-12` is 1 there.

Three ways to lose one. It is rounded off before anything runs (`1 - 1e-9` as
the end of a clip); it is smaller than all that the dtype has; it is added to
numbers so large that no place was found at which the sum feels it. Constants
are those of the trace, with the line that made them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.audit.backward import users_line
from gradwatch.audit.culprit import program_of
from gradwatch.audit.running import BACKWARD, Point, Running
from gradwatch.provenance.paths import operations
from gradwatch.reports import Source

__all__ = ["Swallowed", "swallowed", "unfit"]

_SMALL = 1e-4
"""A constant up to that may be meant as an epsilon."""

_OFF = 1e-6
"""So near to a half or a whole number a constant is one with an epsilon."""

_MOST = 16.0
_PLACES = 60
_SECONDS = 0.3
_ADDS = ("AddV2", "Add", "Sub")
_PASSING = ("Cast", "Identity", "Reshape", "BroadcastTo", "Fill", "Pack")
_LITERAL = re.compile(r"\b\d*\.?\d*e-\d+")


class Swallowed(NamedTuple):
    """A constant without effect.

    Attributes:
        constant: what was written, 1e-12.
        how: a sentence that says what becomes of it.
        source: the user's line.
        name: of the operation that no longer feels it, in the float32 graph;
            `""` if it is not known there.
    """

    constant: float
    how: str
    source: Source
    name: str = ""


def swallowed(
    narrow: Running, wide: Running | None, points: Sequence[Point]
) -> list[Swallowed]:
    """Returns the constants of a subject that float32 swallows.

    Args:
        narrow: it in float32.
        wide: it in float64, where constants are as they were written.
        points: where to look whether one is felt.
    """
    found = [*_rounded(wide or narrow, narrow.dtype), *_added(narrow, points)]
    alike: dict[Any, Swallowed] = {}
    for one in found:
        alike.setdefault((one.source, f"{one.constant:.2g}"), one)
    return list(alike.values())


def unfit(wide: Running, dtype: str) -> list[Swallowed]:
    """Returns the constants that a narrower dtype does not hold."""
    return [*_rounded(wide, dtype)]


def _rounded(run: Running, dtype: str) -> Iterator[Swallowed]:
    """Constants that are others in a narrower dtype."""
    narrow = tf.as_dtype(dtype)
    least = float(np.finfo(narrow.as_numpy_dtype).tiny) if (
        dtype != "bfloat16"
    ) else 1.18e-38  # fmt: skip
    for operation, value in _constants(run.graph):
        if operation.outputs[0].dtype.size < narrow.size:
            continue
        line = users_line(operation)
        if line is None:
            continue
        with np.errstate(over="ignore"):
            kept = float(np.asarray(value).astype(narrow.as_numpy_dtype))
        off = value - kept
        if 0 < abs(value) < least / (1.0 if dtype == "float32" else 2.0**9):
            how = f"it is smaller than what {dtype} holds, and so 0."
            yield Swallowed(value, how, line, operation.name)
        elif (
            off
            and kept
            and abs(kept) <= _MOST
            and (2 * kept).is_integer()
            and abs(off) < (_OFF if dtype == "float32" else 2e-2)
            and _intended(off)
        ):
            sign = "+" if off > 0 else "-"
            size = float(f"{abs(off):.3g}")
            how = f"{kept:g} {sign} {size:g} is {kept:g} in {dtype}."
            yield Swallowed(size, how, line, operation.name)


def _intended(off: float) -> bool:
    """Whether an offset has few digits, as somebody writes them."""
    short = float(f"{abs(off):.2g}")
    return abs(abs(off) - short) < 1e-3 * short or abs(off) < 1e-14


def _constants(graph: Any) -> Iterator[tuple[Any, float]]:
    """Float constants of the forward pass that are one number."""
    for operation in operations(graph):
        if operation.type != "Const" or BACKWARD in operation.name:
            continue
        if not operation.outputs[0].dtype.is_floating:
            continue
        value = tf.make_ndarray(operation.get_attr("value")).astype(float)
        if value.size and (value == value.flat[0]).all():
            yield operation, float(value.flat[0])


def _added(run: Running, points: Sequence[Point]) -> Iterator[Swallowed]:
    """Small constants that no sum feels."""
    sums = list(_sums(run.graph))
    if not sums:
        return
    felt, seen = np.zeros(len(sums), bool), np.zeros(len(sums), bool)
    program = program_of(run)
    until = time.perf_counter() + _SECONDS
    few = points[:: max(1, len(points) // _PLACES)]
    for point in few:
        asked = [other for _, other, _ in sums]
        values = program.run(asked, run.given(point))[0]
        for k, (value, (operation, _, small)) in enumerate(zip(values, sums)):
            felt[k] |= _feels(value.numpy(), small, operation.type)
            seen[k] = True
        if felt.all() or time.perf_counter() > until:
            break
    for k, (operation, _, small) in enumerate(sums):
        line = users_line(operation)
        if felt[k] or not seen[k] or line is None:
            continue
        name = operation.outputs[0].dtype.name
        constant = float(f"{abs(small):.6g}") or _written(line)
        if not constant:
            continue
        how = f"what it is added to is too large to feel it in {name},"
        how = f"{how} at any of {len(few)} places." if small else (
            f"it is smaller than what {name} holds, and so 0."
        )  # fmt: skip
        yield Swallowed(constant, how, line, operation.name)


def _sums(graph: Any) -> Iterator[tuple[Any, Any, float]]:
    """Operations that add a small constant, what they add it to, and that."""
    for operation in graph.get_operations():
        if operation.type not in _ADDS or BACKWARD in operation.name:
            continue
        if not operation.outputs[0].dtype.is_floating:
            continue
        for mine, other in ((0, 1), (1, 0)):
            small = _value(operation.inputs[mine])
            if small is None or abs(small) > _SMALL:
                continue
            narrow = operation.outputs[0].dtype.size < 4
            if small == 0 and not narrow:
                continue
            yield operation, operation.inputs[other], small
            break


def _value(tensor: Any) -> float | None:
    """The one number that a constant tensor holds."""
    while tensor.op.type in _PASSING:
        tensor = tensor.op.inputs[-1 if tensor.op.type == "Fill" else 0]
    if tensor.op.type != "Const" or not tensor.dtype.is_floating:
        return None
    value = tf.make_ndarray(tensor.op.get_attr("value")).astype(float)
    if not value.size or (value != value.flat[0]).any():
        return None
    return float(value.flat[0])


def _feels(value: Any, small: float, kind: str) -> bool:
    """Whether a sum differs from what the constant is added to, anywhere."""
    with np.errstate(all="ignore"):
        constant = np.asarray(small).astype(value.dtype)
        total = value - constant if kind == "Sub" else value + constant
        return bool((total != value).any())


def _written(line: Source) -> float:
    """The first small constant that a line's text has, or 0."""
    found = _LITERAL.search(line.text)
    return float(found[0]) if found else 0.0
