"""Progress: where a loss stands between the constant answer and the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Record, Schema
from gradwatch.rules.evidence import (
    ALIKE,
    BATCH,
    bounded,
    constant_loss,
    fitted,
)
from gradwatch.rules.order import between_batches
from gradwatch.rules.rows import Columns, Row, xrays
from gradwatch.rules.standing import Standing
from gradwatch.rules.trends import highest_mean
from gradwatch.rules.windows import Windows

__all__ = ["Progress"]

_WINDOW = 16
_MEDIANS = 128
_LAST = 2  # X-rays that say what is so now
_UNKNOWN_PLAN = 5000
_LONGEST = 10_000
_MUCH = 0.5
_LITTLE = 0.05  # of the way; taken for s^2 where that is not known
_SMALL = 1e-30
_BOUNDS = ("component_constant_loss", "component_lowest_loss")


class Progress:
    """Follows the loss, or those of its parts whose bounds are known.

    Several optimizers (adversaries) have no common progress: nothing comes.
    Rules may share one: each record counts once.
    """

    def __init__(self) -> None:
        self._windows = Windows(_WINDOW)
        self._slots: object = None
        self._record: Record | None = None
        self._stood: list[Standing] = []

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """Takes a new Schema; one with other slots begins anew."""
        self._plan = min(anatomy.planned_steps or _UNKNOWN_PLAN, _LONGEST)
        if schema.slots == self._slots:
            return
        self._slots = schema.slots
        self._columns = Columns(schema)
        self._bounded = bounded(self._columns)
        losses = schema.columns("loss_component")
        constants = schema.columns(_BOUNDS[0])
        self._parts = [part for part in constants if part in losses]
        loss = schema.column("loss")
        known = [] if loss is None else [loss]
        several = "optimizer_gradient_norm" in self._columns
        self._measured = bool(known) and not several
        self._windows.begin([*known, *(losses[part] for part in self._parts)])
        self._medians: list[NDArray[np.float32]] = []
        self._first: NDArray[np.float32] | None = None
        self._spacing, self._waiting = _WINDOW, 0
        self._rows: list[Row] = []
        self._known: list[Row] = []
        self._then: list[NDArray[np.float32]] = []
        self._began: Row | None = None
        self._seen_by_xrays = self._xrayed()
        self._seen = 0

    def stands(self, record: Record) -> list[Standing]:
        """Returns where the run stands, after windows that complete.

        After each of the first, then ever more rarely: 8 to 16 times while the
        number of steps doubles.
        """
        if record is not self._record:
            self._record, self._stood = record, list(self._stands(record))
        return self._stood

    def _stands(self, record: Record) -> Iterator[Standing]:
        self._rows += xrays(record)
        for window in self._windows.cut(record):
            if not self._measured:
                continue
            self._seen += len(window.steps)
            step = int(window.steps[-1])
            median = np.sort(window.values, 0)[len(window.steps) // 2]
            while self._rows and self._rows[0].step <= step:
                self._known = [*self._known, self._rows.pop(0)][-16:]
                self._then = [*self._then, median][-_LAST:]
                self._began = self._began or self._known[0]
                self._seen_by_xrays = self._xrayed()
            if self._first is None:
                self._first = window.values[:2].mean(0)
            self._keep(median)
            if self._seen % self._pace() < _WINDOW:
                yield self._standing(step)

    def _pace(self) -> int:
        """Steps from one standing to the next: a power of 2."""
        return max(_WINDOW, 1 << (self._seen // 8).bit_length() - 1)

    def _keep(self, median: NDArray[np.float32]) -> None:
        """Keeps at most 128 medians: of 16 steps, or of 32, 64, ..."""
        self._waiting += _WINDOW
        if self._waiting < self._spacing:
            return
        self._waiting = 0
        self._medians.append(median)
        if len(self._medians) == _MEDIANS:
            self._medians = self._medians[::2]
            self._spacing *= 2

    def _standing(self, step: int) -> Standing:
        bounds, facts = self._seen_by_xrays
        known = np.isfinite(bounds[:, :2]).all(1)
        chosen = 1 + np.flatnonzero(known) if known.any() else [0]
        losses = np.array(self._medians, float)[:, chosen].sum(1)
        latest = losses[-max(2, len(losses) // 4) :]
        assert self._first is not None
        start = float(self._first[chosen].sum())
        constant, lowest, highest = (
            bounds[known].sum(0) if known.any() else [np.nan] * 3
        )
        gains, odds = self._paired(step)
        paired = gains or [math.nan]
        then = [float(median[chosen].sum()) for median in self._then]
        return Standing(
            step=step,
            seen=self._seen,
            plan=self._plan,
            first=float(np.fmax(start, losses[0])),
            now=float(np.median(latest)),
            newest=float(losses[-1]),
            then=min(then, default=math.nan),
            constant=float(constant),
            highest=float(highest),
            lowest=float(lowest),
            paired=float(np.median(paired)),
            least=min(paired),
            odds=odds,
            course=losses,
            spacing=self._spacing,
            **facts,
        )

    def _xrayed(self) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Bounds `[parts, 3]`, and what else `Standing` has of X-rays."""
        rows = self._distinct(self._known)
        found = []
        for part in self._parts:
            each = [self._values(rows, bound, part) for bound in _BOUNDS]
            middles = [float(np.median(v)) if len(v) else np.nan for v in each]
            found.append([*middles, max(middles[0], highest_mean(each[0]))])
        facts = {
            "spread": self._latest(lambda row: [self._spread(row)]),
            "began": self._spread(self._began) if self._began else math.nan,
            "inputs": self._latest(self._inputs),
            "ordered": between_batches(self._columns, rows),
            "copies": bool(rows) and all(map(self._copies, rows)),
        }
        return np.array(found, float).reshape(len(self._parts), 3), facts

    def _copies(self, row: Row) -> bool:
        """Whether targets are the inputs, by all that is known of both."""
        signals = ("batch_mean", "batch_std", "batch_min", "batch_max")
        pairs = [
            [self._columns.get(row, s, name) for name in ("inputs", "targets")]
            for s in signals
        ]
        return all(a == b for a, b in pairs)

    def _values(
        self, rows: Sequence[Row], signal: str, part: str
    ) -> NDArray[np.float64]:
        """A component's bound, X-ray by X-ray, see `fitted`.

        Batches below 16 say nothing.
        """
        get = self._columns.get
        values = []
        for row in rows:
            n, value = get(row, "examples"), get(row, signal, part)
            told = math.isfinite(constant_loss(self._columns, row, part))
            if n >= BATCH and told and math.isfinite(value):
                values.append(value * fitted(self._columns, row))
        return np.array(values)

    def _paired(self, step: int) -> tuple[list[float], float]:
        """See `Standing`: one share for each batch, and their odds."""
        rows = [row for row in self._known if 2 * row.step >= step]
        gains, odds = [], 0.0
        for row in self._distinct(rows or self._known[-1:]):
            losses = self._bounded(row)
            constant, lowest, loss = losses.sum(0).tolist()
            if constant - lowest > ALIKE * abs(constant):
                gain = (constant - loss) / (constant - lowest)
                gains.append(gain)
                odds += self._odds(row, gain)
        little = gains and max(gains) < _MUCH
        return gains, odds if little else math.nan

    def _odds(self, row: Row, gain: float) -> float:
        """Log of the odds that `Standing.ignorant` asks for, of one X-ray.

        The constant is fitted to the batch, which takes 1/n of its loss, and
        for one parameter adds a variance of 1/2 to that of n g / 2, n s^2.
        """
        n, spread = self._columns.get(row, "examples"), self._spread(row)
        says = n * (spread**2 if spread > 0 else _LITTLE)
        gain += (fitted(self._columns, row) - 1) * (1 - gain)
        return n * gain / 2 * says / (says + 0.5)

    def _distinct(self, rows: Sequence[Row]) -> list[Row]:
        """The last row of each batch, in order.

        Keras shuffles a seeded fit's arrays the same way in each epoch, so that
        X-rays may meet one batch again and again: it has one voice.
        """
        signals = ("batch_mean", "batch_std")
        last: dict[tuple[float, ...], Row] = {}
        for row in rows:
            values = [v for s in signals for v in self._given(row, s)]
            last[tuple(values or [row.step])] = row
        return sorted(last.values(), key=lambda row: row.step)

    def _given(self, row: Row, signal: str) -> list[float]:
        fields = self._columns.all(row, signal).items()
        return [v for name, v in fields if not name.startswith("predictions")]

    def _latest(self, read: Callable[[Row], Sequence[float]]) -> float:
        """The largest of what the last X-rays show; NaN if there are few."""
        if len(self._known) < _LAST:
            return math.nan
        found = [value for row in self._known[-_LAST:] for value in read(row)]
        return max(found, default=math.nan)

    def _inputs(self, row: Row) -> list[float]:
        fields = self._columns.all(row, "batch_example_std")
        return [v for name, v in fields.items() if name.startswith("inputs")]

    def _spread(self, row: Row) -> float:
        get = self._columns.get
        moved = get(row, "batch_example_std", "predictions")
        targets = get(row, "batch_example_std", "targets")
        low = get(row, "batch_min", "predictions")
        high = get(row, "batch_max", "predictions")
        if not targets > 0:
            return math.nan
        if get(row, "batch_unit_row_ratio", "predictions") > 0.99 and low >= 0:
            # Probabilities: they are 0 and 1 where all is sure.
            mean = get(row, "batch_mean", "predictions")
            return moved / max(math.sqrt(max(mean * (1 - mean), 0.0)), _SMALL)
        whole = get(row, "batch_integer_ratio", "targets")
        comparable = whole < 0.5 or 0 <= low <= high <= 1
        return moved / targets if comparable else math.nan
