"""Divergence: a loss or a gradient that leaves all bounds, before Inf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.climb import Climb, Climbing

__all__ = ["DivergingLoss", "ExplodingGradient", "NegativeLoss"]

_SCALES = ((4, 3, 100.0), (16, 4, 10.0), (64, 16, 3.0))
_FASTER = ((4, 3, 1e4), (16, 4, 1e3), (64, 16, 100.0))
_KEPT, _HALF = 56, 24
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
    loses. Told once.
    """

    name = "diverging_loss"
    severity: Severity = "critical"
    needs = ("loss",)
    meaning = "The loss rises for good above all that it was."
    advice = (
        "Stop and lower the learning rate, by ten for a start; if inputs or "
        "targets are far from 1 in size, scale them first."
    )

    def __init__(self) -> None:
        self._climbing = Climbing(_SCALES)
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._loss = schema.column("loss")
        self._rate = schema.column("learning_rate")

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block) or self._loss is None or self._told:
            return
        losses = record.values[:, self._loss].astype(float)
        climb = self._climbing.look(record.steps, np.abs(losses), losses > 0)
        if climb is not None:
            self._told = True
            yield self._finding(climb, record)

    def _finding(self, climb: Climb, record: Block) -> Finding:
        row = int(np.searchsorted(record.steps, climb.step))
        evidence = _evidence("loss", climb)
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
            evidence=_evidence("gradient_norm", climb),
            causes=("learning_rate_high", "initialisation", "unscaled_input"),
            message=(
                f"The gradient explodes: its norm is {climb.now:.3g} at step "
                f"{climb.step}; up to step {climb.first_step} it never was "
                f"above {climb.before:.3g}."
                f"{near if severity == 'critical' else ''}"
            ),
            advice=self.advice,
        )


class NegativeLoss:
    """The loss falls below zero, ever faster: it has no bound below.

    Definition: the loss is negative and the smallest of the last 3, 4 or 16
    magnitudes is more than 100, 10 or 2 times the largest of all steps up to 4,
    16 or 64 steps before; on the last scale, it also falls by at least a third
    more than in as many steps before. Threshold: a likelihood of continuous
    numbers may well be above 1, and its negative logarithm below 0; but near a
    bound, progress slows down. What falls ever faster is no error, but a score
    that is minimised instead of maximised, or an error with a minus. Told once.
    """

    name = "negative_loss"
    severity: Severity = "warning"
    needs = ("loss",)
    meaning = "The loss is negative and falls ever faster."
    advice = (
        "Look for a sign: a score or a log-likelihood has to be negated to "
        "become a loss, and targets must be in the range that the loss expects."
    )
    _SCALES = ((4, 3, 100.0), (16, 4, 10.0), (64, 16, 2.0))

    def __init__(self) -> None:
        self._climbing = Climbing(self._SCALES)
        self._recent = np.zeros(0)
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._loss = schema.column("loss")

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block) or self._loss is None or self._told:
            return
        losses = record.values[:, self._loss].astype(float)
        faster = (losses < 0) & self._faster(losses)
        climb = self._climbing.look(record.steps, np.abs(losses), faster)
        if climb is not None:
            self._told = True
            yield self._finding(climb)

    def _faster(self, losses: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the loss falls faster than before, at each new row."""
        known = np.concatenate([self._recent, losses])
        self._recent = known[-_KEPT:]
        padded = np.concatenate([np.full(_KEPT, np.nan), known])
        rows = np.lib.stride_tricks.sliding_window_view(padded, 8)
        means = rows.mean(1)[-len(losses) - 2 * _HALF :] if len(losses) else []
        now, middle, first = (
            np.asarray(means)[2 * _HALF - back :][: len(losses)]
            for back in (0, _HALF, 2 * _HALF)
        )
        # Of the first rows, too few are known to say.
        known_all = np.isfinite(first)
        slower: NDArray[np.bool_] = known_all & ~(
            middle - now > 1.33 * (first - middle)
        )
        return ~slower

    def _finding(self, climb: Climb) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=climb.first_step,
            last_step=climb.step,
            evidence=_evidence("loss", climb._replace(now=-climb.now)),
            causes=("wrong_sign",),
            message=(
                f"The loss is {-climb.now:.3g} at step {climb.step} and falls "
                "ever faster: nothing bounds it below."
            ),
            advice=self.advice,
        )


def _evidence(signal: str, climb: Climb) -> dict[str, Any]:
    return {
        f"{signal}_before": climb.before,
        f"{signal}_now": climb.now,
        "since_step": climb.first_step,
    }
