"""Constant targets: is there anything to be learned at all?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from gradwatch.records import (
    Anatomy,
    Block,
    Epoch,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.compiled import Compared, Field, compared, field
from gradwatch.rules.rows import Columns, Row

__all__ = ["ConstantTarget"]

_CROSS = ("binary", "rows", "classes")
_XRAYS = {"binary": 3, "rows": 3, "classes": 3, "distance": 4, "poisson": 4}
_NEIGHBOURS = 9
_ODD = 2.5
_QUIET = 1.0
_FALLEN = 0.01
_SHARE = 0.3
_KNOWN = 0.1
_EXAMPLES = 1_000
_MANY = 100_000


class ConstantTarget:
    """All targets are the same.

    Definition: in all X-rays, at least three (four unless the loss is a
    crossentropy), the targets of a known loss do not differ between examples
    (`batch_example_std` is 0), and everyday losses show no other example
    either: since the loss is so low that one would show, no step had 2.5 times
    the median loss of the nine steps up to it, for a whole epoch and 1,000
    examples (or for 100,000). An example would show once the median loss l is
    below 1 / b for a batch of b: where `p` is predicted for what is rare, l is
    about p and one rare example adds `-ln(p) / b`, which is above `l ln(b)`,
    2.8 times l for 16; one that is known by half already could hide, but then
    later still better. A loss below 0.1 / b is no jump: all is known by 90 %.
    By distances, once the loss is below both 1 % and
    0.3 / b of the first: another example, as far off as all were at first, adds
    1 / b.
    Why both: a share q of other examples escapes k X-rays with a chance of
    `(1 - q)^(k b)`, which is 0.4 for one in a hundred, 32 in a batch and three
    X-rays; but as long as l is above q it is not learned, and makes the loss
    jump. Only one of 1 / b and more may be known before that shows, and then it
    escapes with a chance of `exp(-k)`, 0.05. A whole epoch holds all examples:
    where it does not, less than one of 1,000 may be missed (0.37 for exactly
    that many). Silent for models with frozen kernels or an output that is not
    Dense: there, a constant target can be a way of writing a loss.
    """

    name = "constant_target"
    severity: Severity = "warning"
    needs = ("loss", "examples", "batch_example_std")
    meaning = "All targets are the same, so there is nothing to learn."
    advice = (
        "Look at the targets just before `fit`: a cast to integers, an argmax "
        "of ids, an integer division or a wrong column leave one value."
    )

    def __init__(self) -> None:
        self._told = False
        self._ruled_out = False
        self._xrays: list[int] = []
        self._kind = ""
        self._value = float("nan")
        self._first_loss = float("nan")
        self._near: deque[float] = deque(maxlen=_NEIGHBOURS)
        self._since = -1
        self._quiet = 0.0
        self._epoch = 0

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy, self._columns = anatomy, Columns(schema)
        found = [schema.column(signal) for signal in ("loss", "examples")]
        known = [column for column in found if column is not None]
        self._everyday = known if len(known) == 2 else []
        frozen = [
            v for v in anatomy.variables if not v.trainable and len(v.shape) > 1
        ]
        self._ruled_out |= bool(frozen)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if self._told or self._ruled_out or not self._everyday:
            return
        if isinstance(record, Epoch):
            whole = 0 <= self._since <= self._epoch < record.step
            if whole and self._quiet >= _EXAMPLES:
                yield from self._tell(record.step - 1)
            self._epoch = record.step
        elif isinstance(record, Block):
            everyday = record.values[:, self._everyday].astype(float)
            for i, (loss, examples) in enumerate(everyday):
                step = int(record.steps[i])
                self._step(step, float(loss), float(examples))
                if record.xray[i]:
                    self._xray(Row(step, record.values[i]))
                if self._quiet >= _MANY:
                    yield from self._tell(step)

    def _step(self, step: int, loss: float, examples: float) -> None:
        """Looks whether this batch holds an example unlike the others."""
        if not math.isfinite(loss) or not examples > 3:
            return
        if not self._near:
            self._first_loss = loss
        self._near.append(loss)
        if not self._kind or len(self._near) < _NEIGHBOURS:
            return
        usual = sorted(self._near)[_NEIGHBOURS // 2]
        if self._kind in _CROSS:
            shows = usual * examples <= _QUIET
        else:
            share = min(_FALLEN, _SHARE / examples)
            shows = usual <= share * self._first_loss
        if not shows:
            return
        if self._since < 0:
            self._since = step
        self._quiet += examples
        seen = loss * examples > _KNOWN or self._kind not in _CROSS
        self._ruled_out |= loss > _ODD * usual and seen

    def _xray(self, row: Row) -> None:
        pairs = compared(self._anatomy, self._columns, row)
        if len(pairs) != 1 or not _usual(pairs[0]):
            self._ruled_out = True
            return
        targets = field(self._columns, row, pairs[0].targets)
        self._kind = pairs[0].kind
        self._value = targets.mean
        self._ruled_out |= not _constant(targets)
        self._xrays.append(row.step)

    def _tell(self, step: int) -> Iterator[Finding]:
        if self._ruled_out or len(self._xrays) < _XRAYS[self._kind]:
            return
        self._told = True
        yield Finding(
            rule=self.name,
            severity=self.severity,
            subject="targets",
            first_step=self._xrays[0],
            last_step=step,
            evidence={
                "batch_example_std": 0.0,
                "batch_mean": self._value,
                "xrays": len(self._xrays),
                "examples_without_another": int(self._quiet),
            },
            causes=("data",),
            message=(
                "The targets of all examples are the same (their mean is "
                f"{self._value:.4g}) in all {len(self._xrays)} X-rays, and "
                f"nothing in the losses of {self._quiet:.0f} examples hints at "
                "another one."
            ),
            advice=self.advice,
        )


def _usual(pair: Compared) -> bool:
    return pair.kind in _XRAYS and pair.units > 0 and pair.component != ""


def _constant(targets: Field) -> bool:
    size = max(abs(targets.min), abs(targets.max))
    return targets.min == targets.max or targets.example_std <= 1e-6 * size
