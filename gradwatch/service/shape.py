"""Whether plain data is a snapshot of a run: everything that readers rely on.

Checked once at the door, so that nobody behind it has to expect that a field
is missing or of another type. Fields that are not listed are let through:
newer writers may add some. Imports the standard library and records only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, get_args

from gradwatch.records import Phase

__all__ = ["is_snapshot"]

_Check = Callable[[Any], bool]

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def is_snapshot(data: Any) -> bool:
    """Returns whether `data`, as JSON gave it, is a snapshot of a run."""
    return _SNAPSHOT(data)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    if isinstance(value, int):  # JSON's integers have any size
        return abs(value) < 1 << 64
    return isinstance(value, float) or value in _NOT_FINITE


def _count(value: Any) -> bool:
    return isinstance(value, int) and _number(value) and value >= 0


def _fields(**checks: _Check) -> _Check:
    """An object that has at least these fields."""
    return lambda value: (
        isinstance(value, dict)
        and all(
            name in value and check(value[name])
            for name, check in checks.items()
        )
    )


def _each(check: _Check) -> _Check:
    """An object of any keys."""
    return lambda value: (
        isinstance(value, dict) and all(map(check, value.values()))
    )


def _rows(*columns: _Check) -> _Check:
    """A list of lists, one entry a column."""
    return lambda value: (
        isinstance(value, list)
        and all(
            isinstance(row, list)
            and len(row) == len(columns)
            and all(check(entry) for check, entry in zip(columns, row))
            for row in value
        )
    )


def _distribution(value: Any) -> bool:
    """What `runstate.Distribution.plain` returns."""
    if not isinstance(value, Mapping) or not _number(value.get("sum")):
        return False
    edges, counts = value.get("edges"), value.get("counts")
    return (
        isinstance(edges, list)
        and isinstance(counts, list)
        and len(counts) == len(edges) + 1
        and all(map(_count, counts))
        and all(_number(e) and math.isfinite(float(e)) for e in edges)
        and all(a < b for a, b in pairwise(edges))
    )


_SNAPSHOT = _fields(
    run=_fields(
        id=lambda v: _text(v) and _ID.fullmatch(v) is not None,
        name=_text,
        start=_number,
        host=_text,
    ),
    model=_text,
    optimizer=_text,
    variables=_count,
    phase=lambda v: v in get_args(Phase),
    reason=_text,
    end=_number,
    heartbeat=_number,
    next_beat=_number,
    dropped=_each(_count),
    errors=_each(_count),
    epoch=_number,
    steps=_count,
    planned_steps=_number,
    last_step_time=_number,
    values=_rows(_text, _text, _number),
    counters=_fields(
        skipped_steps=_fields(nonfinite=_count, loss_scale=_count),
        clipped_steps=_count,
        last_nonfinite_step=_number,
        last_nonfinite_time=_number,
        nonfinite=_rows(_text, _text, _count),
        variable_nonfinite=_rows(_text, _count),
        findings=_rows(_text, _text, _count),
        finding_times=_rows(_text, _text, _text, _number),
    ),
    step_duration=_distribution,
    step_gradient_norm=_distribution,
    loss_window=_each(_number),
)
