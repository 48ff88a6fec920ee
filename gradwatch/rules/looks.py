"""Looks: has a run learned more than the best constant answer, so far?"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradwatch.records import Anatomy, Schema
from gradwatch.rules.compiled import Compared, Field, compared, field
from gradwatch.rules.evidence import constant_loss
from gradwatch.rules.rows import Columns, Row

__all__ = ["Look", "Looks"]

_XRAYS = 3
_HALF = 1000
_FLAT = 0.95


class Look(NamedTuple):
    """What one X-ray says.

    Attributes:
        step: its number.
        loss: the compiled loss.
        constant: what the best constant would have.
        rate: learning rate.
        inputs: the field.
        targets: the field.
        predictions: the field.
    """

    step: int
    loss: float
    constant: float
    rate: float
    inputs: Field
    targets: Field
    predictions: Field


class Looks:
    """The last few X-rays of a model with one known loss and one input."""

    def __init__(self) -> None:
        self.seen: list[Look] = []
        self.pair: Compared | None = None
        self.better = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy, self._columns = anatomy, Columns(schema)

    def take(self, row: Row) -> Look | None:
        """Returns what an X-ray says, `None` unless all of it is known."""
        pairs = compared(self._anatomy, self._columns, row)
        if len(pairs) != 1 or not pairs[0].kind:
            return None
        self.pair = pair = pairs[0]
        get = self._columns.get
        look = Look(
            row.step,
            get(row, "loss_component", pair.component),
            constant_loss(self._columns, row, pair.component),
            get(row, "learning_rate"),
            field(self._columns, row, "inputs"),
            field(self._columns, row, pair.targets),
            field(self._columns, row, pair.predictions),
        )
        if not math.isfinite(look.loss) or not look.constant > 0:
            return None
        self.seen = [*self.seen, look][-_XRAYS:]
        self.better |= look.loss < _FLAT * look.constant
        return look

    @property
    def useless(self) -> bool:
        """Half of the training is over, and a constant would be as good.

        In no X-ray was the loss below 95 % of that of the best constant; the
        last three go beyond the middle of what is planned, or step 1,000.
        """
        half = self._anatomy.planned_steps / 2 or _HALF
        return (
            not self.better
            and len(self.seen) == _XRAYS
            and self.seen[-1].step >= half
        )

    def arrives(self, steps: float) -> bool:
        """Whether the loss will be below a constant's, falling as it fell."""
        first, last = self.seen[0], self.seen[-1]
        if not min(first.loss, last.loss) > 0:
            return False
        speed = math.log(last.loss / first.loss) / (last.step - first.step)
        return speed * steps <= math.log(_FLAT * last.constant / last.loss)

    @property
    def left(self) -> int:
        """Steps that are left; as many as there were if that is unknown."""
        last = self.seen[-1].step
        left = self._anatomy.planned_steps - last
        return left if left > 0 else last

    @property
    def evidence(self) -> dict[str, float]:
        """The numbers that show it."""
        last = self.seen[-1]
        return {"loss": last.loss, "component_constant_loss": last.constant}

    @property
    def story(self) -> str:
        """The same in words."""
        last = self.seen[-1]
        return (
            f"At step {last.step} of {self._anatomy.planned_steps or 'many'} "
            f"the loss is {last.loss:.4g}; predicting the same for all "
            f"examples would give {last.constant:.4g}."
        )
