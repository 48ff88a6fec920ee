"""Movement: how far updates carry the weights, next to how large these are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from gradwatch.records import (
    Anatomy,
    Finding,
    Record,
    Schema,
    Severity,
    Variable,
)
from gradwatch.rules.progress import Progress, Standing
from gradwatch.rules.replaced import Replaced
from gradwatch.rules.rows import Columns, Row, xrays

__all__ = ["UpdateTooLarge", "UpdateTooSmall"]

_X_RAYS = ("variable_weight_norm", "variable_update_norm")


class _Move(NamedTuple):
    """What an update did to the kernels, at an X-ray.

    Attributes:
        step: of the X-ray.
        rate: learning rate in force.
        ratios: path -> norm of the update over that of the weights.
        growth: path -> norm of the weights over that at the start.
    """

    step: int
    rate: float
    ratios: Mapping[str, float]
    growth: Mapping[str, float]

    @property
    def largest(self) -> tuple[float, str]:
        """The largest ratio, and whose it is."""
        return max((r, path) for path, r in self.ratios.items())


class _Moves:
    """The moves of a run, and where it stood.

    Only kernels count: trainable variables with several axes that did not start
    as zeros; what starts at zero moves by a multiple of itself at first.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress or Progress()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """Takes a new Schema; forgets the moves."""
        self._progress.begin(anatomy, schema)
        self._columns = Columns(schema)
        measured = schema.columns("variable_update_norm")
        self._kernels = {
            v.path: v.scale * math.sqrt(math.prod(v.shape))
            for v in anatomy.variables
            if v.path in measured and _is_kernel(v)
        }
        self._moves: list[_Move] = []

    def looks(self, record: Record) -> Iterator[tuple[Standing, list[_Move]]]:
        """Yields, after each window, where the run stands and its moves."""
        for row in xrays(record):
            applied = self._columns.get(row, "update_applied") > 0
            if applied and self._kernels:
                self._moves.append(self._move(row))
        for at in self._progress.stands(record):
            yield at, [move for move in self._moves if move.step <= at.step]

    def _move(self, row: Row) -> _Move:
        weights, updates = (self._columns.all(row, s) for s in _X_RAYS)
        ratios, growth = {}, {}
        for path, start in self._kernels.items():
            if weights[path] > 0 and math.isfinite(updates[path]):
                ratios[path] = updates[path] / weights[path]
                growth[path] = weights[path] / start
        rate = self._columns.get(row, "learning_rate")
        return _Move(row.step, rate, ratios or {"": 0.0}, growth)


def _worse(at: Standing) -> bool:
    """Whether the loss is above the first, or no better than a constant's."""
    return at.now > at.first or (at.gain < 0 and not at.falling())


def _is_kernel(variable: Variable) -> bool:
    return variable.trainable and len(variable.shape) > 1 and variable.scale > 0


class _OfMoves:
    """What the rules share: the moves, and that each tells once."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._moves = _Moves(progress)
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._moves.begin(anatomy, schema)


class UpdateTooLarge(_OfMoves):
    """Updates are as large as the weights, and the loss is the worse for it.

    Definition: in the last two X-rays a kernel moved by half of its norm or
    more in one step, or stands at ten times the norm it began with; and the
    loss is worse than the best constant answer (or than at first). Or steps of
    a tenth of the norm or more have replaced the kernel since the middle of the
    run (`Replaced`), and the loss is worse than that of a constant and does not
    fall (Kendall's test, 5 %). Threshold: ratios around 0.001 are usual and
    0.01 to 0.1 bold (LeCun et al. 1998; Bottou 2012); at 0.5 the direction of
    the weights is that of the last batch. Told once.
    """

    name = "update_too_large"
    severity: Severity = "warning"
    needs = ("loss", *_X_RAYS)
    meaning = "Updates are about as large as the weights."
    advice = "Lower the learning rate by ten, and warm it up."
    _RATIO, _GROWTH = 0.5, 10.0

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        super().begin(anatomy, schema)
        self._replaced = Replaced(anatomy, schema)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        self._replaced.take(record)
        for at, moves in self._moves.looks(record):
            if self._told or len(moves) < 2 or not _worse(at):
                continue
            far = [self._far(move) for move in moves[-2:]]
            both = {
                path: (moves[-1].ratios[path], moves[-1].growth[path])
                for path in sorted(far[0] & far[1])
            }
            if not both and at.gain < 0 and not at.falling():
                steps = self._replaced.by(at)
                both = {steps.path: steps[1:3]} if steps else {}
            if both:
                self._told = True
                yield self._finding(at, moves[-2].step, both)

    def _far(self, move: _Move) -> set[str]:
        grown = {p for p, times in move.growth.items() if times >= self._GROWTH}
        return grown | {p for p, r in move.ratios.items() if r >= self._RATIO}

    def _finding(
        self, at: Standing, first: int, far: Mapping[str, tuple[float, float]]
    ) -> Finding:
        path = max(far, key=lambda path: (far[path][0], path))
        ratio, times = far[path]
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=path,
            first_step=first,
            last_step=at.step,
            evidence={
                "update_to_weight_ratio": ratio,
                "weight_growth": times,
                "loss_first": at.first,
                "loss_now": at.now,
                "variables": list(far),
            },
            causes=("learning_rate_high",),
            message=(
                f"Updates are too large: one step moves {path} by {ratio:.2g} "
                f"of its norm, which is {times:.3g} times what it was at the "
                f"start, and the loss is {at.now:.4g}; it was {at.first:.4g}."
            ),
            advice=self.advice,
        )


class UpdateTooSmall(_OfMoves):
    """Updates are so small that the whole plan cannot change the weights.

    Definition: in three X-rays at least, r is the largest ratio of an update's
    norm to its kernel's. All steps so far and all that are planned, at the r
    measured, move no kernel by 2 % of its norm, even if all went the same way;
    and the loss has gone less than a tenth of its way. Or, before half of the
    plan is over: r has fallen to a tenth, what is left moves no kernel by
    0.5 %, and the loss has gone less than a fifth of its way; or the learning
    rate has fallen to a thousandth, what is left moves no kernel by 0.1 %, and
    the loss has gone less than four fifths. Not while r grows (a warm-up).
    Threshold: a triangle inequality; to learn, a kernel has to move by a good
    part of its norm. Told once.
    """

    name = "update_too_small"
    severity: Severity = "warning"
    needs = ("loss", *_X_RAYS)
    meaning = "Updates are too small to change the weights in the plan."
    advice = (
        "Raise the learning rate until one step moves the weights by about a "
        "thousandth; look at the schedule, and at clipping with a tiny bound."
    )

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for at, moves in self._moves.looks(record):
            if self._told or len(moves) < 3:
                continue
            first, now = moves[0].largest[0], moves[-1].largest[0]
            if not 0 <= now <= 2 * first or first == 0:
                continue
            steps = [0, *(move.step for move in moves)]
            gaps = [b - a for a, b in pairwise(steps)]
            done = sum(m.largest[0] * gap for m, gap in zip(moves, gaps))
            left = now * max(0, at.plan - at.seen)
            never = done + left < 0.02 and at.gain < 0.1
            early = 2 * at.seen < at.plan
            faded = now < 0.1 * first and left < 0.005 and at.gain < 0.2
            over = moves[-1].rate < 1e-3 * moves[0].rate and left < 1e-3
            if never or (early and (faded or (over and at.gain < 0.8))):
                self._told = True
                yield self._finding(at, moves, done + left)

    def _finding(
        self, at: Standing, moves: list[_Move], reach: float
    ) -> Finding:
        ratio, path = moves[-1].largest
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=moves[0].step,
            last_step=at.step,
            evidence={
                "update_to_weight_ratio": ratio,
                "reach_of_plan": reach,
                "planned_steps": at.plan,
                "loss_first": at.first,
                "loss_now": at.now,
            },
            causes=("learning_rate_low",),
            message=(
                f"Updates are too small: a step moves no kernel by more than "
                f"{ratio:.1e} of its norm ({path}), so {at.plan} steps can "
                f"change it by {reach:.2%} at most."
            ),
            advice=self.advice,
        )
