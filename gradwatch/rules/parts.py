"""Parts: the components of a loss and their gradients, X-ray by X-ray."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from gradwatch.records import Block, Record, Schema
from gradwatch.rules.evidence import constant_loss
from gradwatch.rules.rows import Columns, Row

__all__ = ["XRAYS", "Look", "Looks", "Part", "siblings"]

XRAYS = 3
"""X-rays in a row that a rule about parts looks at."""

_FIRST, _LAST = 16, 32
_IDLE = 0.9


class Part(NamedTuple):
    """A part of the loss at an X-ray; NaN where unknown.

    Attributes:
        gradient: norm of its gradient.
        first: mean over the first 16 steps.
        last: mean over the last 32.
        weight: by which it is multiplied.
        constant: what the best constant would have, of a compiled loss.
    """

    gradient: float
    first: float
    last: float
    weight: float
    constant: float


class Look(NamedTuple):
    """What one X-ray says about siblings: parts with the same parent.

    Attributes:
        step: its number.
        parts: path -> what is known of it.
        cosines: of their gradients, by both paths.
        spread: how much predictions depend on the example, 1 = as targets do.
    """

    step: int
    parts: dict[str, Part]
    cosines: dict[str, float]
    spread: float

    def cosine(self, a: str, b: str) -> float:
        """Returns the cosine of two parts' gradients."""
        known = self.cosines
        return known.get(f"{a}|{b}", known.get(f"{b}|{a}", math.nan))

    def ratio(self, a: str, b: str) -> float:
        """Returns how many times larger the gradient of `a` is."""
        below = self.parts[b].gradient
        return self.parts[a].gradient / below if below > 0 else math.nan


class Looks:
    """Follows the parts of a loss at every step; says so at X-rays."""

    def __init__(self) -> None:
        self.seen: list[Look] = []
        self._start: dict[str, list[float]] = {}

    def begin(self, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        places = schema.columns("loss_component")
        if list(places) != list(self._start):
            self.seen, self._start = [], {path: [] for path in places}
        self._places = places
        self._tail = np.zeros((0, len(self._places)))

    def take(self, record: Record) -> Iterator[Look]:
        """Yields what X-rays say, one by one."""
        if not isinstance(record, Block) or len(self._places) < 2:
            return
        rows = record.values[:, list(self._places.values())].astype(float)
        for path, values in zip(self._places, rows.T):
            start = self._start[path]
            start.extend(values[: max(0, _FIRST - len(start))])
        before = len(self._tail)
        rows = np.concatenate([self._tail, rows])
        for place in np.flatnonzero(record.xray):
            end = before + int(place) + 1
            row = Row(int(record.steps[place]), record.values[place])
            look = self._look(row, rows[max(0, end - _LAST) : end])
            self.seen = [*self.seen, look]
            if len(self.seen) > 2 * XRAYS:
                del self.seen[1]  # the first one stays
            yield look
        self._tail = rows[-_LAST:]

    def _look(self, row: Row, recent: Any) -> Look:
        get = self._columns.get
        parts = {}
        for path, value in zip(self._places, recent.mean(0)):
            raw = get(row, "raw_loss_component", path)
            weight = get(row, "loss_component", path) / raw if raw else math.nan
            parts[path] = Part(
                get(row, "component_gradient_norm", path),
                float(np.mean(self._start[path])),
                float(value),
                weight,
                constant_loss(self._columns, row, path),
            )
        cosines = self._columns.all(row, "component_gradient_cosine")
        return Look(row.step, parts, cosines, self._spread(row))

    def _spread(self, row: Row) -> float:
        """See `Look`; NaN for ids of classes, which are no size of anything."""
        targets, predictions = (
            self._columns.get(row, "batch_example_std", name)
            for name in ("targets", "predictions")
        )
        ids = self._columns.get(row, "batch_integer_ratio", "targets") == 1.0
        ids &= self._columns.get(row, "batch_max", "targets") > 1.0
        return predictions / targets if targets > 0 and not ids else math.nan

    def idle(self, path: str) -> bool:
        """Whether a part is not a tenth better than two X-rays before."""
        before, now = self.seen[-XRAYS].parts[path], self.seen[-1].parts[path]
        return now.last >= _IDLE * before.last > 0


def siblings(paths: Sequence[str], layers: Sequence[str]) -> Iterator[Any]:
    """Yields pairs of parts of the same whole."""
    known = [p for p in paths if p.split("/")[-1] != "unexplained"]
    for a, b in combinations(known, 2):
        if _parent(a, paths, layers) == _parent(b, paths, layers):
            yield a, b


def _parent(path: str, paths: Sequence[str], layers: Sequence[str]) -> str:
    """The part that a part belongs to, `""` if that is the loss itself."""
    above = path.rpartition("/")[0]
    return above if above in paths and path not in layers else ""
