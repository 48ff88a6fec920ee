"""What a state.json must look like: everything that readers rely on.

Checked once at the door, so that nobody behind it has to expect that a field
is missing or of another type. Fields that are not listed are left out: newer
writers may add some. Needs msgspec; imports records and the present only.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from gradwatch.records import Phase, Severity
from gradwatch.runstate import VERSION, Snapshot

__all__ = ["Number", "decode"]

Number = float | Literal["NaN", "Infinity", "-Infinity"]
"""`float()` reads it."""

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Id = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]


class _Run(TypedDict):
    id: _Id
    name: str
    start: float
    host: str
    versions: NotRequired[dict[str, str]]
    labels: NotRequired[dict[str, str]]


class _Counters(TypedDict):
    skipped_steps: dict[str, _Count]
    clipped_steps: _Count
    rollbacks: NotRequired[_Count]
    examples: NotRequired[_Count]
    data_wait: NotRequired[float]
    last_nonfinite_step: int
    last_nonfinite_time: float
    nonfinite: list[tuple[str, str, _Count]]
    variable_nonfinite: list[tuple[str, _Count]]
    findings: list[tuple[str, str, _Count]]
    finding_times: list[tuple[str, str, str, float]]


class _Distribution(TypedDict):
    edges: list[float]
    counts: list[_Count]
    sum: Number


class _History(TypedDict):
    steps: list[_Count]
    series: list[tuple[str, str, Any]]


class _Finding(TypedDict):
    rule: str
    severity: Severity
    subject: str
    first_step: int
    last_step: int
    evidence: dict[str, Any]
    causes: list[str]
    message: str
    advice: str


class _Autopsy(TypedDict):
    step: int
    verdict: str
    headline: str


class _Snapshot(TypedDict):
    version: int
    run: _Run
    rank: NotRequired[Annotated[str, Meta(pattern=r"\A[0-9]{1,6}\Z")]]
    model: str
    optimizer: str
    variables: _Count
    phase: Phase
    phase_since: NotRequired[float]
    reason: str
    end: float
    heartbeat: float
    next_beat: float
    executions: NotRequired[_Count]
    step_began: NotRequired[float]
    compiling: NotRequired[bool]
    queued: NotRequired[dict[str, _Count]]
    costs: NotRequired[dict[str, float]]
    dropped: dict[str, _Count]
    errors: dict[str, _Count]
    epoch: int
    steps: _Count
    resumed_from: NotRequired[str]
    planned_steps: int
    last_step_time: float
    values: list[tuple[str, str, Number]]
    counters: _Counters
    step_duration: _Distribution
    step_gradient_norm: _Distribution
    loss_window: dict[str, Number]
    history: NotRequired[_History]
    findings: NotRequired[list[_Finding]]
    autopsies: NotRequired[list[_Autopsy]]


class _Versioned(TypedDict):
    version: NotRequired[Any]


_versioned = msgspec.json.Decoder(_Versioned)
_snapshot = msgspec.json.Decoder(_Snapshot)


def decode(content: bytes) -> Snapshot:
    """Returns the snapshot that a state.json holds.

    Series of the history become `array("f")`; they are most of the file.

    Raises:
        ValueError: it cannot be used; the text is `json`, `version` or `shape`,
            see `runs.REASONS`.
    """
    try:
        version = _versioned.decode(content).get("version")
        if not isinstance(version, int) or version > VERSION:
            raise ValueError("version")
        snapshot = _snapshot.decode(content)
        for name in ("step_duration", "step_gradient_norm"):
            _check(snapshot[name])
        _share(snapshot)
        if "history" in snapshot:
            _compact(snapshot["history"])
    except msgspec.ValidationError as error:
        raise ValueError("shape") from error
    # Deep nesting ends in RecursionError, not in an error of msgspec's.
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("json") from error
    return snapshot


def _check(distribution: _Distribution) -> None:
    """A cumulative histogram: see `series.Distribution.plain`."""
    edges, counts = distribution["edges"], distribution["counts"]
    ascend = all(a < b for a, b in pairwise(edges))
    if len(counts) != len(edges) + 1 or not ascend:
        raise ValueError("shape")


def _share(snapshot: _Snapshot) -> None:
    """Keeps each name once: a run has many values of few subjects."""
    same: dict[str, str] = {}
    snapshot["values"] = [
        (same.setdefault(s, s), same.setdefault(subject, subject), value)
        for s, subject, value in snapshot["values"]
    ]


def _compact(history: _History) -> None:
    """Each series has a number for each step."""
    steps = len(history["steps"])
    for i, (signal, subject, values) in enumerate(history["series"]):
        if not isinstance(values, list) or len(values) != steps:
            raise ValueError("shape")
        history["series"][i] = (signal, subject, _floats(values))


def _floats(values: Sequence[Any]) -> array[float]:
    try:
        return array("f", values)
    except TypeError:  # NaN and the infinities are texts
        return array("f", map(float, msgspec.convert(values, list[Number])))
