"""Negative losses: does anything bound the loss below?"""

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
from gradwatch.rules.climb import Climb, Climbing, falls_faster
from gradwatch.rules.progress import Progress
from gradwatch.rules.standing import Standing
from gradwatch.rules.trends import gathers_pace

__all__ = ["NegativeLoss"]

_KEPT = 64
_LATE = 128


class NegativeLoss:
    """The loss falls below zero, ever faster: it has no bound below.

    Definition: the loss is negative; the smallest of the last 4 or 16
    magnitudes is more than 10 or 2 times the largest of all steps up to 16 or
    64 steps before, which are as many at least (a cosine begins at 0, and one
    step there is no measure of it); and the loss falls faster and faster: of
    the last falls, each over 18 steps (between means of 8), each is a fifth
    larger than the one before, and the last one by more than three standard
    errors of the noise; or the same of the last two, over 6 steps (between
    means of 4), where each is twice the one before. Or, after half of the plan
    and 128 steps at least, the loss was negative in each quarter of the run so
    far, is now more than twice what it was in the first, and has fallen faster
    from each to the next (`gathers_pace`). Threshold: a likelihood of
    continuous numbers may well be above 1 and its negative logarithm below 0;
    but near a bound, progress slows down. What falls ever faster is no error,
    but a score that is minimised instead of maximised, or an error with a
    minus. Told once.
    """

    name = "negative_loss"
    severity: Severity = "warning"
    needs = ("loss",)
    meaning = "The loss is negative and falls ever faster."
    advice = (
        "Look for a sign: a score or a log-likelihood has to be negated to "
        "become a loss, targets must be in the range that the loss expects, "
        "and the score of a critic needs a gradient penalty or clipping."
    )

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._slow = Climbing(((64, 16, 2.0),))
        self._fast = Climbing(((16, 4, 10.0),))
        self._recent = np.zeros(0)
        self._seen = 0
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._progress.begin(anatomy, schema)
        self._loss = schema.column("loss")

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        stood = self._progress.stands(record)
        if not isinstance(record, Block) or self._loss is None or self._told:
            return
        losses = record.values[:, self._loss].astype(float)
        recent = np.concatenate([self._recent, losses])
        self._recent = recent[-_KEPT:]
        before = self._seen + np.arange(len(losses))
        self._seen += len(losses)
        slow = fast = np.zeros(len(losses), np.bool_)
        if (losses < 0).any():
            known = np.concatenate([np.full(_KEPT, np.nan), recent])
            slow = falls_faster(known, len(losses), 8, 18, 3, 1.2)
            fast = falls_faster(known, len(losses), 4, 6, 2, 2.0)
            slow, fast = slow & (before >= 79), fast & (before >= 19)
        climbs = (
            self._slow.look(record.steps, np.abs(losses), slow),
            self._fast.look(record.steps, np.abs(losses), fast),
        )
        seen = [climb for climb in (*climbs, *map(_all_along, stood)) if climb]
        if seen:
            self._told = True
            yield self._finding(min(seen, key=lambda climb: climb.step))

    def _finding(self, climb: Climb) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=climb.first_step,
            last_step=climb.step,
            evidence=climb._replace(now=-climb.now).evidence("loss"),
            causes=("wrong_sign",),
            message=(
                f"The loss is {-climb.now:.3g} at step {climb.step} and falls "
                "ever faster: nothing bounds it below."
            ),
            advice=self.advice,
        )


def _all_along(at: Standing) -> Climb | None:
    """That a loss below zero has gathered pace from the first step on."""
    if at.seen < max(_LATE, at.plan / 2) or not gathers_pace(at.course):
        return None
    quarters = [part.mean() for part in np.array_split(at.course, 4)]
    if not max(quarters) < 0 or quarters[-1] > 2 * quarters[0]:
        return None
    first = max(0, at.step - at.seen + 1)
    return Climb(first, at.step, -float(quarters[0]), -at.newest)
