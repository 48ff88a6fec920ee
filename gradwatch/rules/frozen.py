"""Frozen variables: they could change, and do not."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)
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
    the same to the last bit: something puts it back after each step. While the
    learning rate is 0, not before half of the plan is over (1,000 steps if it
    is not known): a warm-up may begin so. Told once, with all concerned.
    """

    name = "frozen_variable"
    severity: Severity = "warning"
    needs = (
        "variable_gradient_norm",
        "variable_weight_norm",
        "variable_update_norm",
    )
    meaning = "A trainable variable gets a gradient but does not change."
    advice = (
        "Look at the learning rate in force, at per-layer rates, constraints "
        "and callbacks that set weights; freeze with `trainable = False`."
    )
    _LAST, _STEPS = 3, 32

    def __init__(self) -> None:
        self._told: set[str] = set()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        self._half = (anatomy.planned_steps or 2 * _UNKNOWN_HALF) // 2
        self._rows: list[Row] = []

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block):
            return
        for row in xrays(record):
            if not self._columns.get(row, "update_applied") > 0:
                continue
            self._rows = [*self._rows, row][-self._LAST :]
            first = self._rows[0].step
            enough = len(self._rows) == self._LAST
            if enough and row.step - first >= self._STEPS:
                yield from self._judge(first, row.step)

    def _judge(self, first: int, last: int) -> Iterator[Finding]:
        if self._early(last):
            return
        updates = self._history("variable_update_norm")
        gradients = self._history("variable_gradient_norm")
        largest = max(map(max, gradients.values()), default=0.0)
        faint = _FAINT * largest
        heard = [p for p in updates if min(gradients.get(p, (0.0,))) > faint]
        still = [p for p in heard if max(updates[p]) == 0]
        back = self._put_back(updates)
        still += [p for p in heard if p in back and p not in still]
        new = [p for p in still if p not in self._told]
        if not new:
            return
        self._told |= set(still)
        everything = len(still) == len(updates)
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

    def _early(self, last: int) -> bool:
        """Whether the rate is 0, and may yet rise: a warm-up."""
        rates = [self._columns.get(row, "learning_rate") for row in self._rows]
        return max(rates) == 0 and last < self._half

    def _put_back(self, updates: dict[str, tuple[float, ...]]) -> set[str]:
        """Variables whose updates are undone."""
        norms = self._history("variable_weight_norm")
        spreads = self._history("variable_unit_spread")
        return {
            path
            for path, moved in updates.items()
            if min(moved) > 1e-5 * max(norms[path])
            and len(set(norms[path])) == 1
            and len(set(spreads.get(path, ()))) == 1
        }

    def _history(self, signal: str) -> dict[str, tuple[float, ...]]:
        """Subject -> values in the X-rays that are kept, oldest first."""
        each = [self._columns.all(row, signal) for row in self._rows]
        return {p: tuple(values[p] for values in each) for p in each[-1]}
