"""Looks: has a run learned more than the best constant answer, so far?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gradwatch.records import Anatomy, Schema
from gradwatch.rules.compiled import Compared, Field, compared, field
from gradwatch.rules.evidence import constant_loss
from gradwatch.rules.rows import Columns, Row

__all__ = ["Look", "Looks", "Seen"]

_XRAYS = 3
_HALF = 1000
_FLAT = 0.95


class Look(NamedTuple):
    """What one X-ray says.

    Attributes:
        step: its number.
        loss: the compiled loss of the output.
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
    """The last few X-rays of each output whose loss is known."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy, self._columns = anatomy, Columns(schema)

    def take(self, row: Row) -> Iterator[Seen]:
        """Yields the outputs of which an X-ray says all that is needed."""
        for pair in compared(self._anatomy, self._columns, row):
            look = self._look(row, pair)
            if not pair.kind or not math.isfinite(look.loss):
                continue
            if look.constant > 0:
                seen = self._seen.setdefault(pair.predictions, Seen())
                seen.take(self._anatomy, pair, look)
                yield seen

    def _look(self, row: Row, pair: Compared) -> Look:
        get = self._columns.get
        return Look(
            row.step,
            get(row, "loss_component", pair.component),
            constant_loss(self._columns, row, pair.component),
            get(row, "learning_rate"),
            field(self._columns, row, "inputs"),
            field(self._columns, row, pair.targets),
            field(self._columns, row, pair.predictions),
        )


class Seen:
    """The last few X-rays of one output."""

    def __init__(self) -> None:
        self.seen: list[Look] = []
        self.better = False

    def take(self, anatomy: Anatomy, pair: Compared, look: Look) -> None:
        """Takes what the next X-ray says."""
        self._anatomy, self.pair = anatomy, pair
        self.seen = [*self.seen, look][-_XRAYS:]
        self.better |= look.loss < _FLAT * look.constant

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
        last, name = self.seen[-1], self.pair.predictions.partition("/")[2]
        of = f" of {name}" if name else ""
        return (
            f"At step {last.step} of {self._anatomy.planned_steps or 'many'} "
            f"the loss{of} is {last.loss:.4g}; predicting the same for all "
            f"examples would give {last.constant:.4g}."
        )
