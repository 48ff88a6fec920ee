"""Divergence: a loss or a gradient that leaves all bounds, before Inf."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.climb import Climb, Climbing
from gradwatch.rules.progress import Progress
from gradwatch.rules.standing import Standing

__all__ = ["DivergingLoss", "ExplodingGradient"]

_SCALES = ((4, 3, 100.0), (16, 4, 10.0), (64, 16, 3.0))
_FASTER = ((4, 3, 1e4), (16, 4, 1e3), (64, 16, 100.0))
_OVERFLOW = 1e15  # its square is near float32's largest number, 3e38


class DivergingLoss:
    """The loss rises for good above everything that it was.

    Definition: the smallest of the last 3, 4 or 16 losses is more than 100, 10
    or 3 times the largest loss of all steps up to 4, 16 or 64 steps before,
    the first ones among them. Threshold: where a step is longer than the
    curvature allows, the error grows by a constant factor at each step
    (LeCun et al. 1998, Efficient BackProp, section 4.6), so the three scales
    see factors from 10, 1.2 and 1.02 a step. A spike returns; a bold rate that
    recovers, or a restart of a schedule, stays below what an untrained model
    loses. Or, where steps have one length whatever the gradient is (Adam,
    RMSprop), so that a loss which is climbed grows with a power of the steps
    only: the second half of the run so far, four windows of 16 at least, rises
    (Kendall's test, 5 %), and all of it is above three times both the first
    loss and what the best constant answer costs (`Standing.lost`); that must be
    known, for targets that move (a critic's) have no such bound. Told once.
    """

    name = "diverging_loss"
    severity: Severity = "critical"
    needs = ("loss",)
    meaning = "The loss rises for good above all that it was."
    advice = (
        "Stop and lower the learning rate, by ten for a start; if inputs or "
        "targets are far from 1 in size, scale them first."
    )
    _SIGN = (
        "Stop, and look for a sign: a gradient that is added, or a score that "
        "is minimised; then lower the learning rate."
    )

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._climbing = Climbing(_SCALES)
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._progress.begin(anatomy, schema)
        self._loss = schema.column("loss")
        self._rate = schema.column("learning_rate")

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        lost = (at for at in self._progress.stands(record) if at.lost())
        at = next(lost, None)
        if not isinstance(record, Block) or self._loss is None or self._told:
            return
        losses = record.values[:, self._loss].astype(float)
        climb = self._climbing.look(record.steps, np.abs(losses), losses > 0)
        if climb is not None and (at is None or climb.step <= at.step):
            self._told = True
            yield self._finding(climb, record)
        elif at is not None:
            self._told = True
            yield self._rising(at)

    def _finding(self, climb: Climb, record: Block) -> Finding:
        row = int(np.searchsorted(record.steps, climb.step))
        evidence = climb.evidence("loss")
        if self._rate is not None:
            evidence["learning_rate"] = float(record.values[row, self._rate])
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=climb.first_step,
            last_step=climb.step,
            evidence=evidence,
            causes=("learning_rate_high", "unscaled_input", "wrong_sign"),
            message=(
                f"The loss diverges: {climb.now:.3g} at step {climb.step}; up "
                f"to step {climb.first_step} it never was above "
                f"{climb.before:.3g}."
            ),
            advice=self.advice,
        )

    def _rising(self, at: Standing) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=max(0, at.step - at.seen + 1),
            last_step=at.step,
            evidence={
                "loss_before": at.first,
                "loss_now": at.newest,
                "loss_of_constant": at.constant,
            },
            causes=("wrong_sign", "learning_rate_high"),
            message=(
                f"The loss diverges: it rises steadily, and is {at.newest:.3g} "
                f"at step {at.step}; it began at {at.first:.3g}, and a "
                f"constant answer has {at.constant:.3g}."
            ),
            advice=self._SIGN,
        )


class ExplodingGradient:
    """The gradient grows by decades while the loss is no better.

    Definition: the smallest of the last 3, 4 or 16 gradient norms is more than
    10,000, 1,000 or 100 times the largest of all steps up to 4, 16 or 64 steps
    before, and the loss is not below the first one. Threshold: a gradient may
    well grow tenfold while a model learns (from embeddings, say, that start
    near 0), but then its loss falls. Critical where squares are about to
    overflow (norm above 1e15). Told once, and again if it becomes critical.
    """

    name = "exploding_gradient"
    severity: Severity = "critical"
    needs = ("loss", "gradient_norm")
    meaning = "The gradient grows by decades."
    advice = (
        "Lower the learning rate and clip by the global norm; in recurrent "
        "nets look at the scale of the recurrent weights."
    )

    def __init__(self) -> None:
        self._climbing = Climbing(_FASTER)
        self._first: float | None = None
        self._climb: Climb | None = None
        self._lost = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = [schema.column(signal) for signal in self.needs]

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block) or not len(record):
            return
        loss, norm = self._columns
        if loss is None or norm is None:
            return
        if self._first is None:
            self._first = float(record.values[0, loss])
        norms = record.values[:, norm].astype(float)
        worse = ~(record.values[:, loss] < self._first)
        if self._climb is None:
            self._climb = self._climbing.look(record.steps, norms, worse)
            if self._climb is not None:
                yield self._finding(self._climb, "warning")
        if self._climb is None or self._lost:
            return
        after = record.steps >= self._climb.step
        huge = np.flatnonzero(after & (norms > _OVERFLOW) & (norms < np.inf))
        if len(huge):
            self._lost = True
            step, now = int(record.steps[huge[0]]), float(norms[huge[0]])
            climb = self._climb._replace(step=step, now=now)
            yield self._finding(climb, "critical")

    def _finding(self, climb: Climb, severity: Severity) -> Finding:
        near = " Its squares are about to overflow."
        return Finding(
            rule=self.name,
            severity=severity,
            subject="",
            first_step=climb.first_step,
            last_step=climb.step,
            evidence=climb.evidence("gradient_norm"),
            causes=("learning_rate_high", "initialisation", "unscaled_input"),
            message=(
                f"The gradient explodes: its norm is {climb.now:.3g} at step "
                f"{climb.step}; up to step {climb.first_step} it never was "
                f"above {climb.before:.3g}."
                f"{near if severity == 'critical' else ''}"
            ),
            advice=self.advice,
        )
