"""Where two recorded runs part: the first step that rounding cannot explain.

Only steps that are recorded in both are compared. numpy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.compare.rounding import KINDS, Kind, kind, least, limits, scaled
from gradwatch.compare.tables import Table
from gradwatch.records import Schema
from gradwatch.signals import Slot

__all__ = ["Difference", "Parting", "Verdict", "parting"]

Verdict = Literal["same", "rounding", "different", "unknown"]

_ROWS = 4096  # compared at once, so that memory is bounded
_PERCENT = 0.01

# What is computed earlier than others of its kind, or later.
_EARLY = {
    "raw_loss_component": 0,
    "loss": 2,
    "applied_gradient_norm": 2,
    "update_applied": 2,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A slot, named as in the first run, whose values differ.

    Attributes:
        signal: its signal.
        subject: its subject.
        values: in the first run and in the other one.
        relative: their difference over their size, see `scaled`.
    """

    signal: str
    subject: str
    values: tuple[float, float]
    relative: float

    @property
    def kind(self) -> Kind | None:
        """How it was judged."""
        return kind(Slot(self.signal, self.subject))


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two runs part; a step is -1 where there is none.

    Attributes:
        verdict: `same` to the bit, `rounding` = nothing else explains more,
            `different`, `unknown` = nothing was recorded in both.
        compared: number of steps that are recorded in both.
        first: the first of them.
        last: the last of them.
        looked: number of steps at which both were looked at by X-ray.
        unequal: the first step with a value that is not the same bit by bit.
        step: the first step that differs by more than rounding explains.
        before: the last one compared before `step`, or before `unequal` if
            there is none.
        effect: the first step from `step` on whose losses or gradients differ
            by more than rounding explains.
        percent: the first step whose losses differ by more than 1 %.
        given: the first step whose batches are known to differ.
        differences: those of `step` that rounding does not explain, otherwise
            all of `unequal`; likely causes before effects.
        alike: signal -> number of its slots that do not differ so at that step.
    """

    verdict: Verdict = "unknown"
    compared: int = 0
    first: int = -1
    last: int = -1
    looked: int = 0
    unequal: int = -1
    step: int = -1
    before: int = -1
    effect: int = -1
    percent: int = -1
    given: int = -1
    differences: tuple[Difference, ...] = ()
    alike: Mapping[str, int] = field(default_factory=dict)


def parting(
    one: Sequence[Table],
    other: Sequence[Table],
    unit: float,
    named: Callable[[str], str] = str,
) -> Parting:
    """Returns where two runs part.

    Args:
        one: the readings of a run.
        other: those of another one.
        unit: unit roundoff of what they compute in.
        named: subject of the other run -> what it is called in the first one.
    """
    pairs = list(_pairs(one, other, named))
    if not pairs:
        return Parting()
    steps = np.concatenate([pair.steps for pair in pairs])
    worst = np.concatenate([_worst(pair) for pair in pairs])
    allowed = limits(steps, worst, unit)
    beyond = worst > allowed
    unequal = _first(worst.any(axis=1))
    parted = _first(beyond.any(axis=1))
    row = parted if parted >= 0 else unequal
    told, alike = _told(pairs, row, allowed[row] * (parted >= 0))
    after = beyond[:, 2:].any(axis=1) & (np.arange(len(steps)) >= parted)
    at = [-1, *steps.tolist()]  # a row that there is not is the one before
    verdict: Verdict = "rounding" if parted < 0 else "different"
    return Parting(
        verdict if row >= 0 else "same",
        compared=len(steps),
        first=at[1],
        last=at[-1],
        looked=sum(int(pair.xray.sum()) for pair in pairs),
        unequal=at[unequal + 1],
        step=at[parted + 1],
        before=at[max(row, 0)],
        effect=at[_first(after & (parted >= 0)) + 1],
        percent=at[_first(worst[:, 2] > _PERCENT) + 1],
        given=at[_first(beyond[:, 0]) + 1],
        differences=tuple(_by_cause(told)),
        alike=alike,
    )


class _Pair(NamedTuple):
    """Two tables: N steps that both have, K slots that both have.

    Attributes:
        slots: those that are judged, as the first run calls them.
        kinds: int64 `[K]`, the place of each one's kind.
        steps: int64 `[N]`.
        xray: bool `[N]`, whether it is an X-ray in both.
        tables: the first run's, and the other's.
        rows: int64 `[N]` of each table.
        columns: K of each table.
        least: float64 `[K]`, sizes that differences are compared by, at least.
    """

    slots: tuple[Slot, ...]
    kinds: NDArray[np.int64]
    steps: NDArray[np.int64]
    xray: NDArray[np.bool_]
    tables: tuple[Table, Table]
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    columns: tuple[list[int], list[int]]
    least: NDArray[np.float64]

    def values(self, rows: slice, side: int) -> NDArray[np.float64]:
        """Returns the values of some rows of one run."""
        held = self.tables[side].values
        taken = held[self.rows[side][rows]][:, self.columns[side]]
        return taken.astype(np.float64)

    def differences(self, rows: slice) -> NDArray[np.float64]:
        """Returns by how much values of some rows differ; not measured = 0."""
        a, b = self.values(rows, 0), self.values(rows, 1)
        found = scaled(self.slots, a, b, self.least)
        rare = Schema(self.slots).xray & ~self.xray[rows, np.newaxis]
        found[rare] = 0.0
        return found


def _pairs(
    one: Sequence[Table],
    other: Sequence[Table],
    named: Callable[[str], str],
) -> Iterator[_Pair]:
    """Yields what can be compared, by steps."""
    found = (_pair(*each, named) for each in product(one, other))
    pairs = [pair for pair in found if len(pair.steps) and pair.slots]
    yield from sorted(pairs, key=lambda pair: int(pair.steps[0]))


def _pair(one: Table, other: Table, named: Callable[[str], str]) -> _Pair:
    steps, i, j = np.intersect1d(one.steps, other.steps, return_indices=True)
    places = {
        Slot(slot.signal, named(slot.subject)): place
        for place, slot in enumerate(other.slots)
    }
    kinds = {
        slot: (place, KINDS.index(found))
        for place, slot in enumerate(one.slots)
        if slot in places and (found := kind(slot)) is not None
    }
    columns = [place for place, _ in kinds.values()], [places[s] for s in kinds]
    sizes = [
        max(least(s, one.values[i, p]), least(s, other.values[j, q]))
        for s, p, q in zip(kinds, *columns)
    ]
    return _Pair(
        tuple(kinds),
        np.array([found for _, found in kinds.values()], np.int64),
        steps,
        one.xray[i] & other.xray[j],
        (one, other),
        (i, j),
        columns,
        np.array(sizes, np.float64),
    )


def _worst(pair: _Pair) -> NDArray[np.float64]:
    """Returns the largest difference of each kind: float64 `[N, 4]`."""
    found = np.zeros((len(pair.steps), len(KINDS)))
    for first in range(0, len(found), _ROWS):
        rows = slice(first, first + _ROWS)
        differences = pair.differences(rows)
        for i in range(len(KINDS)):
            of = differences[:, pair.kinds == i]
            found[rows, i] = of.max(axis=1, initial=0.0)
    return found


def _first(which: Any) -> int:
    """Returns the first row of bool `[N]` that is true, or -1."""
    rows = np.flatnonzero(which)
    return int(rows[0]) if len(rows) else -1


def _told(
    pairs: Sequence[_Pair], row: int, allowed: NDArray[np.float64]
) -> tuple[list[Difference], Mapping[str, int]]:
    """Returns what differs in a row by more than `[4]`; signals that do not."""
    if row < 0:
        return [], {}
    for pair in pairs:
        if row < len(pair.steps):
            break
        row -= len(pair.steps)
    rows = slice(row, row + 1)
    sizes = pair.differences(rows)[0]
    found = sizes > allowed[pair.kinds]
    a, b = (pair.values(rows, side)[0].tolist() for side in (0, 1))
    told = [
        Difference(*pair.slots[k], (a[k], b[k]), float(sizes[k]))
        for k in np.flatnonzero(found)
    ]
    alike = [pair.slots[k].signal for k in np.flatnonzero(~found)]
    return told, dict(Counter(alike))


def _by_cause(found: Sequence[Difference]) -> list[Difference]:
    """Returns differences of one step, likely causes before effects.

    Gradients from the last variable to the first: that of the last layer is the
    first to be computed. Those of the whole model come after.
    """
    back = [d for d in found if d.signal == "variable_gradient_norm"]
    rest = [d for d in found if d.signal != "variable_gradient_norm"]
    return sorted([*reversed(back), *rest], key=_rank)


def _rank(difference: Difference) -> tuple[int, int, bool]:
    place = KINDS.index(difference.kind or "gradient")
    early = _EARLY.get(difference.signal, 1)
    return place, early, not difference.subject
