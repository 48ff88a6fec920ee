"""Swings: a rate so high that weights jump to and fro, and learn no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.progress import Progress
from gradwatch.rules.replaced import Replaced, Steps
from gradwatch.rules.standing import Standing
from gradwatch.rules.trends import falls
from gradwatch.rules.windows import Window, Windows

__all__ = ["OscillatingLoss"]

_WINDOW = 16
_KEPT = 64


class _Swing(NamedTuple):
    """What a window says.

    Attributes:
        work: mean of what one step takes off the loss, to first order.
        low: smallest loss.
        high: largest loss.
        rate: median learning rate.
    """

    work: float
    low: float
    high: float
    rate: float


class OscillatingLoss:
    """The loss swings at a level that the learning rate itself holds up.

    Definition: over the second half of at least 256 steps the loss does not
    fall (Kendall's test over windows of 16 steps or more, one-sided at 5 %), it
    has gone less than half of its way from the best constant answer (or the
    first loss) to the lowest, and the steps are so large that they hold it
    there. By one of two signs.

    For gradient descent, with momentum or without. Let w* be the
    bottom of the valley. A step changes |w - w*|^2 by -2 r g(w - w*) + r^2 g^2.
    Where swings neither grow nor shrink this is 0 on average, so that the mean
    of g(w - w*) is W/2 with the work W = r |g|^2, what a step would take off
    the loss if there was no curvature. Around a minimum g(w - w*) is twice the
    height above it, so W/4 of the loss is there only because of the rate,
    whether the steps are thrown by batches or overshoot by themselves; on
    slopes that are straight, W/2. Momentum m makes r / (1 - m) of the rate.

    The sign is that W is as large as the loss, so that about a quarter of it
    is due to the rate, and does not fall either. W cannot be above four times
    the loss; if it is, steps are no noise but take each other back, momentum
    carries them less far, and r / (1 + m) counts. Threshold: a quarter is worth
    a lower rate; in runs whose loss is still high, W is 0.001 to 0.2 of it
    where rates are good. In converged ones it may be more, of nearly nothing.

    For any optimizer: steps of a tenth of its norm or more have replaced a
    kernel since the middle of the run (`Replaced`).

    How the loss itself swings is no evidence. Batches that come in the same
    order, or from two sources in turn, make it periodic in healthy runs; that
    of shuffled ones is as good as white; and at the edge of stability it
    alternates for thousands of steps, and falls (Cohen et al. 2021). W has the
    loss's unit, so that this does not matter. Told once. Silent where a loss is
    not above 0, and with several optimizers.
    """

    name = "oscillating_loss"
    severity: Severity = "warning"
    needs = ("loss", "gradient_norm", "learning_rate")
    meaning = "The loss swings and does not fall: steps jump over the valley."
    advice = (
        "Lower the learning rate by three to ten, or let it decay: the loss "
        "comes down with it."
    )
    _LEAST, _SHARE, _GAIN = 256, 1.0, 0.5

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._windows = Windows(_WINDOW)
        self._slots: object = None
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._progress.begin(anatomy, schema)
        self._replaced = Replaced(anatomy, schema)
        columns = [schema.column(signal) for signal in self.needs]
        applied = schema.column("applied_gradient_norm")
        columns.append(columns[1] if applied is None else applied)
        known = [column for column in columns if column is not None]
        self._longer, self._shorter = _reach(anatomy.optimizer)
        self._measured = len(known) == len(columns)
        self._windows.begin(known)
        if schema.slots != self._slots:
            self._slots = schema.slots
            self._swings: list[_Swing] = []
            self._spacing, self._waiting = 1, 0

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not self._measured or self._told:
            return
        self._replaced.take(record)
        stood = {at.step: at for at in self._progress.stands(record)}
        for window in self._windows.cut(record):
            self._take(window)
            at = stood.get(int(window.steps[-1]))
            if at is not None and not self._told:
                yield from self._judge(at)

    def _take(self, window: Window) -> None:
        """Keeps at most 64 windows: each, or every second, fourth, ..."""
        self._waiting += 1
        if self._waiting < self._spacing:
            return
        self._waiting = 0
        loss, gradient, rate, applied = window.values.astype(float).T
        with np.errstate(invalid="ignore"):  # a rate of 0, a gradient of Inf
            work = self._longer * rate * applied * gradient
        self._swings.append(
            _Swing(
                float(work.mean()),
                float(loss.min()),
                float(loss.max()),
                float(np.median(rate)),
            )
        )
        if len(self._swings) == _KEPT:
            self._swings = self._swings[1::2]
            self._spacing *= 2

    @property
    def _later(self) -> list[_Swing]:
        """Those of the second half."""
        return self._swings[len(self._swings) // 2 :]

    def _judge(self, at: Standing) -> Iterator[Finding]:
        if at.seen < self._LEAST or not 0 < at.now < math.inf:
            return
        if at.gain >= self._GAIN or at.falling() or not self._positive():
            return
        work = np.array([swing.work for swing in self._later])
        due = float(np.median(work)) / 4 / at.now
        due *= self._shorter if due > 1 else 1.0
        steps = self._replaced.by(at)
        if 4 * due >= 1 and not falls(work):
            share = f"{min(due, 1):.0%}"
            why = (
                "holds it up: by the size of the gradients, steps to and fro "
                f"make about {share} of it."
            )
        elif steps:
            part = f"{steps.ratio:.2g} of its norm"
            why = f"moves {steps.path} by {part} in each step."
        else:
            return
        self._told = True
        yield self._finding(at, due, steps, why)

    def _positive(self) -> bool:
        return min(swing.low for swing in self._later) > 0

    def _finding(
        self, at: Standing, due: float, steps: Steps | None, why: str
    ) -> Finding:
        _, low, high, rate = np.median(np.array(self._later), 0).tolist()
        order = ("data",) if at.in_order() else ()
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=steps.path if steps else "",
            first_step=max(0, at.step - at.seen // 2 + 1),
            last_step=at.step,
            evidence={
                "loss_first": at.first,
                "loss_now": at.now,
                "loss_low": low,
                "loss_high": high,
                "share_due_to_rate": due,
                "update_to_weight_ratio": steps.ratio if steps else 0.0,
                "learning_rate": rate,
            },
            causes=(*order, "learning_rate_high"),
            message=(
                f"The loss swings between {low:.4g} and {high:.4g} and does "
                f"not fall. The learning rate of {rate:.3g} {why}"
                f"{at.in_order()}"
            ),
            advice=self.advice,
        )


def _reach(optimizer: Mapping[str, Any]) -> tuple[float, float]:
    """How much farther momentum carries steps that are noise.

    Returns:
        This factor, 0 where it is not known, and what is left of it where
        steps take each other back.
    """
    momentum = float(optimizer.get("momentum") or 0.0)
    plain = not optimizer.get("gradient_accumulation_steps")
    if optimizer.get("class_name") != "SGD" or not plain or momentum >= 1:
        return 0.0, 0.0
    return 1 / (1 - momentum), (1 - momentum) / (1 + momentum)
