"""Frozen variables: they could change, and do not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import (
    Anatomy,
    Block,
    Cut,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules import cuts
from gradwatch.rules.rows import Columns, Row, xrays
from gradwatch.rules.wording import listed

__all__ = ["FrozenVariable"]

_FAINT = 1e-3
_UNKNOWN_HALF = 1000


class FrozenVariable:
    """Trainable variables that get a gradient and do not change.

    Definition: in three X-rays at least, over 32 steps or more, whose updates
    were applied, the gradient of a variable is at least a thousandth of the
    largest one (a fainter one is another fault), and its update is exactly
    zero; or its update is not, but its norm and the spread of its units stay
    the same to the last bit: something puts it back after each step (a
    rollback does, and what was before it does not count). While the
    learning rate is 0, not before half of the plan is over (1,000 steps if it
    is not known): a warm-up may begin so. Or, known from the trace before the
    first step, a train step of the user's own takes no gradient of it, or
    computes one and hands it to no optimizer, and does not assign it either.
    Told once, with all concerned.
    """

    name = "frozen_variable"
    severity: Severity = "warning"
    needs = (
        "variable_gradient_norm",
        "variable_weight_norm",
        "variable_update_norm",
    )
    meaning = "A trainable variable could learn but does not change."
    advice = (
        "Look at the learning rate in force, at per-layer rates, constraints "
        "and callbacks that set weights; freeze with `trainable = False`."
    )
    _LAST, _STEPS = 3, 32

    def __init__(self) -> None:
        self._told: set[str] = set()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns, self._first = Columns(schema), schema.first_step
        self._trainable = sum(v.trainable for v in anatomy.variables)
        self._left_out = [c for c in anatomy.cuts if c.kind in cuts.FROZEN]
        self._half = (anatomy.planned_steps or 2 * _UNKNOWN_HALF) // 2
        self._paths = self._columns.subjects("variable_update_norm")
        self._reads = {
            signal: self._columns.reader(signal, self._paths)
            for signal in (*self.needs, "variable_unit_spread")
        }
        self._rows: list[Row] = []
        self._back = schema.column("rollback_steps")

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block):
            return
        for cut in self._left_out:
            if not {*cut.variables} <= self._told:
                self._told |= {*cut.variables}
                yield self._never(cut)
        for row in xrays(record):
            self._forget(record, row.step)
            if not self._columns.get(row, "update_applied") > 0:
                continue
            self._rows = [*self._rows, row][-self._LAST :]
            first = self._rows[0].step
            enough = len(self._rows) == self._LAST
            if enough and row.step - first >= self._STEPS:
                yield from self._judge(first, row.step)
        self._forget(record, math.inf)

    def _forget(self, record: Block, before: float) -> None:
        """Forgets what rollbacks before a step of the record have undone."""
        if self._back is not None:
            back = record.steps[record.values[:, self._back] > 0]
            back = back[back < before]
            if len(back):
                self._rows = [row for row in self._rows if row.step > back[-1]]

    def _judge(self, first: int, last: int) -> Iterator[Finding]:
        if self._early(last):
            return
        updates = self._history("variable_update_norm")
        gradients = self._history("variable_gradient_norm")
        largest = np.fmax.reduce(gradients, None, initial=0.0)
        heard = (gradients > _FAINT * largest).all(0)
        still = [
            self._paths[i]
            for kind in ((updates == 0).all(0), self._put_back(updates))
            for i in np.flatnonzero(heard & kind)
        ]
        new = [path for path in still if path not in self._told]
        if not new:
            return
        self._told |= set(still)
        everything = len(still) == len(self._paths)
        which = "No variable changes" if everything else "These do not change"
        rate = self._columns.get(self._rows[-1], "learning_rate")
        yield Finding(
            rule=self.name,
            severity=self.severity,
            subject=new[0],
            first_step=first,
            last_step=last,
            evidence={"variables": new, "learning_rate": rate},
            causes=("learning_rate_low",) if rate == 0 else (),
            message=(
                f"{which} although gradients reach them: {listed(new)}; the "
                f"learning rate is {rate:.3g}."
            ),
            advice=self.advice,
        )

    def _never(self, cut: Cut) -> Finding:
        """What the train step leaves out."""
        paths = list(cut.variables)
        some = f"{len(paths)} of {self._trainable} trainable variables"
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=paths[0],
            first_step=self._first,
            last_step=self._first,
            evidence={"variables": paths, "cuts": [cuts.plain(cut)]},
            causes=(),
            message=(
                f"{some} never change ({listed(paths)}): {cuts.reason(cut)}."
            ),
            advice=cuts.advice(cut),
        )

    def _early(self, last: int) -> bool:
        """Whether the rate is 0, and may yet rise: a warm-up."""
        rates = [self._columns.get(row, "learning_rate") for row in self._rows]
        return max(rates) == 0 and last < self._half

    def _put_back(self, updates: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Bool `[variables]`: whose updates are undone."""
        norms = self._history("variable_weight_norm")
        spreads = self._history("variable_unit_spread")
        moved = updates.min(0) > 1e-5 * norms.max(0)
        same = (norms == norms[0]) & (spreads == spreads[0])
        back: NDArray[np.bool_] = moved & same.all(0)
        return back

    def _history(self, signal: str) -> NDArray[np.float64]:
        """Float64 `[X-rays, variables]`: of those kept, oldest first."""
        return np.array([self._reads[signal](row) for row in self._rows])
