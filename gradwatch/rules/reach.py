"""Reach: can what is left of the plan change the weights at all?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.movement import X_RAYS, Move, Moves, OfMoves
from gradwatch.rules.rates import Gone, Rates
from gradwatch.rules.standing import MISSCALED, SCALE_FIRST, Standing

__all__ = ["UpdateTooSmall"]


class _Reach(NamedTuple):
    """How far some steps go.

    Attributes:
        steps: all that are planned, or those that are left.
        share: of a kernel's norm, at most.
    """

    steps: int
    share: float


class UpdateTooSmall(OfMoves):
    """Updates are so small that the whole plan cannot change the weights.

    Definition: in three X-rays at least, r is the largest ratio of an update's
    norm to its kernel's. All steps so far and all that are planned, at the r
    measured, move no kernel by 2 % of its norm, even if all went the same way;
    and the loss has gone less than a tenth of its way. Or, before half of the
    plan is over: r has fallen to a tenth, what is left moves no kernel by
    0.5 %, and the loss has gone less than a fifth of its way; or the learning
    rate has fallen to a thousandth, what is left moves no kernel by 0.1 %, and
    the loss has gone less than four fifths (or, without X-rays, it has been
    there for a quarter of all steps, see `Rates`). While r grows (a warm-up),
    only the first, after half of the plan, with an r that goes on growing as
    the number of steps does: a warm-up over 10^7 steps ends in no plan.
    Threshold: a triangle inequality; to learn, a kernel has to move by a good
    part of its norm. A rate to raise is not the advice where the first loss was
    a thousand times that of a constant (`Standing.far_off`). Told once.
    """

    name = "update_too_small"
    severity: Severity = "warning"
    needs = ("loss", *X_RAYS)
    meaning = "Updates are too small to change the weights in the plan."
    advice = (
        "Raise the learning rate until one step moves the weights by about a "
        "thousandth; look at the schedule, and at clipping with a tiny bound."
    )
    _SCHEDULE = (
        "Look at the schedule: it may count other steps than you do (Keras "
        "counts batches, also those that only collect gradients)."
    )
    _LEAST = 128

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        super().begin(anatomy, schema)
        options = anatomy.optimizer
        self._collects = options.get("gradient_accumulation_steps") or 1
        self._rates.begin(schema)

    def __init__(self, moves: Moves | None = None) -> None:
        super().__init__(moves)
        self._rates = Rates()

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        self._rates.take(record)
        for at, moves in self._moves.looks(record):
            if self._told:
                continue
            early = 2 * at.seen < at.plan
            reach = self._reach(at, moves, early) if len(moves) >= 3 else None
            if reach is not None:
                self._told = True
                yield self._small(at, moves, reach)
                continue
            gone = self._rates.gone(at.step, at.seen)
            if gone and early and at.gain < 0.8 and at.seen >= self._LEAST:
                self._told = True
                yield self._gone(at, gone)

    def _reach(
        self, at: Standing, moves: Sequence[Move], early: bool
    ) -> _Reach | None:
        """Returns how far the steps go, if that is too little."""
        first, now = moves[0].largest, moves[-1].largest
        grows = now > 2 * first
        if not now >= 0 or (early if grows else first == 0):
            return None
        steps = [0, *(move.step for move in moves)]
        gaps = [b - a for a, b in pairwise(steps)]
        done = sum(m.largest * gap for m, gap in zip(moves, gaps))
        done /= self._collects
        left = now * max(0, at.plan - at.seen) / self._collects
        known = at.seen - (at.step - moves[-1].step)
        ahead = now * max(0, at.plan - known) / self._collects
        if grows:
            ahead *= (1 + at.plan / max(1, known)) / 2
        never = done + ahead < 0.02 and at.gain < 0.1
        faded = now < 0.1 * first and left < 0.005 and at.gain < 0.2
        over = moves[-1].rate < 1e-3 * moves[0].rate and left < 1e-3
        if never:
            return _Reach(at.plan, done + ahead)
        if early and (faded or (over and at.gain < 0.8)):
            return _Reach(at.plan - at.seen, left)
        return None

    def _small(
        self, at: Standing, moves: Sequence[Move], reach: _Reach
    ) -> Finding:
        ratio, path = moves[-1].largest, moves[-1].path
        begun, rate = moves[0].rate, moves[-1].rate
        evidence = {
            "update_to_weight_ratio": ratio,
            "reach_of_plan": reach.share,
            "planned_steps": at.plan,
            "loss_first": at.first,
            "loss_now": at.now,
        }
        which = "planned" if reach.steps == at.plan else "left"
        said = (
            f"Updates are too small: a step moves no kernel by more than "
            f"{ratio:.1e} of its norm ({path}), so the {reach.steps} steps "
            f"that are {which} can change it by {reach.share:.2%} at most."
        )
        causes: tuple[str, ...] = ("learning_rate_low",)
        advice = self.advice
        if rate < 0.1 * begun:
            said += (
                f" The learning rate is {rate:.2g}; it was {begun:.3g} at step "
                f"{moves[0].step}."
            )
            advice = self._SCHEDULE
        elif at.far_off:
            said += at.began_far_off()
            causes, advice = MISSCALED, SCALE_FIRST
        return self._finding(at, moves[0].step, evidence, said, causes, advice)

    def _gone(self, at: Standing, gone: Gone) -> Finding:
        evidence = {
            "learning_rate": gone.now,
            "learning_rate_before": gone.most,
            "planned_steps": at.plan,
            "loss_first": at.first,
            "loss_now": at.now,
        }
        return self._finding(
            at,
            gone.since,
            evidence,
            f"Updates are too small: since step {gone.since} the learning rate "
            f"is at most {gone.now:.2g}, and it was {gone.most:.3g} before; "
            f"{at.plan} steps are planned, and the loss is {at.now:.4g}.",
            ("learning_rate_low",),
            self._SCHEDULE,
        )

    def _finding(
        self,
        at: Standing,
        first: int,
        evidence: dict[str, float],
        said: str,
        causes: tuple[str, ...],
        advice: str,
    ) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=first,
            last_step=at.step,
            evidence=evidence,
            causes=causes,
            message=said,
            advice=advice,
        )
