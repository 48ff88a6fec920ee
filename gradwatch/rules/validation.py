"""Validation: does what is learned hold for data that was not trained on?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Epoch, Finding, Record, Schema, Severity
from gradwatch.rules.evidence import BATCH, bounded, fitted
from gradwatch.rules.rows import Columns, Row, xrays

__all__ = ["Overfitting"]


class Overfitting:
    """The validation loss has turned while the training loss goes on falling.

    Definition: b is the epoch of the lowest validation loss (of medians of
    three), at least five epochs ago. In all of the last five, the validation
    loss is above the lowest by more than four times the noise (median change
    from one epoch to the next) and a fifth of what it had fallen before; in the
    last three also by a quarter of it. And the training loss is below the
    validation loss and has fallen by a tenth since b.
    Or nothing that was learned has ever held: in all epochs but the first the
    validation loss was above that of the best constant answer to the training
    targets (median of three X-rays or more, of a single compiled loss that is
    the whole loss), and never 5 % below that of the second epoch; in the last
    five it is above its lowest by more than four times the noise, while the
    training loss is 5 % below that constant. So labels that say nothing are
    learned by heart: who knows nothing would do better on what is held out.
    Threshold: a crossentropy creeps up after convergence, because answers
    become surer, while accuracy stays; a quarter is more than that was in any
    healthy run that we know (13 %). With dropout or other noise in training
    only, the training loss is above the validation loss, and nothing is said.
    Told once in a fit.
    """

    name = "overfitting"
    severity: Severity = "warning"
    needs = ("loss",)
    meaning = "Validation becomes worse while training becomes better."
    advice = (
        "Stop at the best epoch (`EarlyStopping` with "
        "`restore_best_weights=True`); more data, augmentation, weight decay "
        "or a smaller model help."
    )
    _LASTS, _KEPT = 5, 16

    def __init__(self) -> None:
        self._constants: deque[float] = deque(maxlen=self._KEPT)
        self._forget()

    def _forget(self) -> None:
        self._epochs: list[tuple[int, int, float, float]] = []
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        self._bounded = bounded(self._columns)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row in xrays(record):
            self._constants.append(self._constant(row))
        if not isinstance(record, Epoch):
            return
        if self._epochs and record.epoch <= self._epochs[-1][0]:
            self._forget()
        losses = (
            record.metrics.get("loss", math.nan),
            record.validation.get("loss", math.nan),
        )
        if all(math.isfinite(loss) for loss in losses):
            self._epochs.append((record.epoch, record.step, *losses))
            if not self._told and len(self._epochs) > self._LASTS:
                yield from self._judge()

    def _constant(self, row: Row) -> float:
        """Loss of the best constant answer; NaN if there is more to it."""
        parts = self._bounded(row)
        few = self._columns.get(row, "examples") < BATCH
        if len(parts) != 1 or few:
            return math.nan
        constant, lowest, part = parts[0].tolist()
        loss = self._columns.get(row, "loss")
        whole = abs(loss - part) <= 0.01 * abs(part) and constant > 2 * lowest
        return constant * fitted(self._columns, row) if whole else math.nan

    def _judge(self) -> Iterator[Finding]:
        table = np.array(self._epochs)
        training, validation = table[:, 2], table[:, 3]
        # Of three in a row, the middle one: the lowest of many is luck.
        threes = np.lib.stride_tricks.sliding_window_view(validation, 3)
        best = 1 + int(np.median(threes, 1).argmin())
        if best >= len(table) - self._LASTS:
            return
        lowest = np.median(threes, 1)[best - 1]
        rise = validation - lowest
        noise = float(np.median(np.abs(np.diff(validation))))
        fallen = float(validation[: best + 1].max() - lowest)
        turned = rise[-self._LASTS :].min() > max(4 * noise, 0.2 * fallen)
        turned &= rise[-3:].min() > 0.25 * abs(lowest)
        learns = training[-1] < validation[-1]
        learns &= training[best] - training[-1] >= 0.1 * abs(training[best])
        empty = rise[-self._LASTS :].min() > 4 * noise and self._empty(table)
        if (turned and learns) or empty:
            self._told = True
            yield self._finding(best)

    def _empty(self, table: NDArray[np.float64]) -> bool:
        """Whether nothing that was learned has ever held."""
        _, _, training, validation = table.T
        known = [c for c in self._constants if math.isfinite(c)]
        constant = float(np.median(known)) if len(known) > 2 else math.nan
        later = validation[1:]
        holds = later.min() <= constant or later.min() < 0.95 * later[0]
        return not holds and training[-1] < 0.95 * constant

    def _finding(self, best: int) -> Finding:
        rows = self._epochs
        first, last = rows[best], rows[-1]
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="validation",
            first_step=first[1],
            last_step=last[1] - 1,
            evidence={
                "best_epoch": first[0],
                "epoch": last[0],
                "validation_loss_best": first[3],
                "validation_loss": last[3],
                "loss_at_best": first[2],
                "loss": last[2],
            },
            causes=("data",),
            message=(
                f"The validation loss was lowest after epoch {first[0]} "
                f"({first[3]:.4g}) and is {last[3]:.4g} after epoch {last[0]}, "
                f"while the training loss fell from {first[2]:.4g} to "
                f"{last[2]:.4g}."
            ),
            advice=self.advice,
        )
