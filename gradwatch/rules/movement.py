"""Movement: how far updates carry the weights, next to how large these are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from gradwatch.records import (
    Anatomy,
    Finding,
    Record,
    Schema,
    Severity,
    Variable,
)
from gradwatch.rules.progress import Progress
from gradwatch.rules.replaced import Replaced
from gradwatch.rules.rows import Columns, Row, xrays
from gradwatch.rules.standing import Standing

__all__ = [
    "FAR",
    "USUAL",
    "X_RAYS",
    "Move",
    "Moves",
    "OfMoves",
    "UpdateTooLarge",
]

X_RAYS = ("variable_weight_norm", "variable_update_norm")

USUAL = 0.001
"""Norm of an update over that of its weights, as it mostly is; a guide."""

FAR = 0.5
"""The same, from where on it is far too large."""

_GROWTH = 10.0


class Move(NamedTuple):
    """What an update did to the kernels, at an X-ray.

    Attributes:
        step: of the X-ray.
        rate: learning rate in force.
        largest: norm of an update over that of its weights, the largest.
        path: whose it is.
        far: path -> this ratio, and the norm of the weights over that at the
            start, of the kernels of which one of the two is far too large.
    """

    step: int
    rate: float
    largest: float
    path: str
    far: Mapping[str, tuple[float, float]]


class Moves:
    """The moves of a run, and where it stood; rules may share one.

    Only kernels count: trainable variables with several axes that did not start
    as zeros; what starts at zero moves by a multiple of itself at first.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._record: Record | None = None

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """Takes a new Schema; forgets the moves."""
        self._progress.begin(anatomy, schema)
        self._moves: list[Move] = []
        self._columns = Columns(schema)
        measured = schema.columns("variable_update_norm")
        starts = {
            v.path: v.scale * math.sqrt(math.prod(v.shape))
            for v in anatomy.variables
            if v.path in measured and _is_kernel(v)
        }
        # Backwards: of kernels that move alike, argmax finds the last by name.
        self._paths = sorted(starts, reverse=True)
        self._starts = np.array([starts[path] for path in self._paths])
        ids = [path.endswith("embeddings") for path in self._paths]
        self._dense = ~np.array(ids, np.bool_)
        self._reads = [self._columns.reader(s, self._paths) for s in X_RAYS]

    def looks(self, record: Record) -> Iterator[tuple[Standing, list[Move]]]:
        """Yields, after each window, where the run stands and its moves."""
        if record is not self._record:
            self._record = record
            for row in xrays(record):
                applied = self._columns.get(row, "update_applied") > 0
                if applied and self._paths:
                    self._moves.append(self._move(row))
        for at in self._progress.stands(record):
            yield at, [move for move in self._moves if move.step <= at.step]

    def _move(self, row: Row) -> Move:
        rate = self._columns.get(row, "learning_rate")
        weights, updates = (read(row) for read in self._reads)
        known = (weights > 0) & np.isfinite(updates)
        if not known.any():
            return Move(row.step, rate, 0.0, "", {})
        with np.errstate(all="ignore"):
            ratios = np.where(known, updates / weights, -np.inf)
            growth = weights / self._starts
        grown = self._dense & (growth >= _GROWTH)
        far = known & ((ratios >= FAR) | grown)
        largest = int(ratios.argmax())
        return Move(
            row.step,
            rate,
            float(ratios[largest]),
            self._paths[largest],
            {
                self._paths[i]: (float(ratios[i]), float(growth[i]))
                for i in np.flatnonzero(far)
            },
        )


def _worse(at: Standing) -> bool:
    """Whether the loss is above the first, or no better than a constant's."""
    return at.now > at.first or (at.gain < 0 and not at.falling())


def _is_kernel(variable: Variable) -> bool:
    return variable.trainable and len(variable.shape) > 1 and variable.scale > 0


class OfMoves:
    """What the rules share: the moves, and that each tells once."""

    def __init__(self, moves: Moves | None = None) -> None:
        self._moves = moves or Moves()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._moves.begin(anatomy, schema)


class UpdateTooLarge(OfMoves):
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
    needs = ("loss", *X_RAYS)
    meaning = "Updates are about as large as the weights."
    advice = "Lower the learning rate by ten, and warm it up."

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
            both = {
                path: moves[-1].far[path]
                for path in sorted(moves[-1].far.keys() & moves[-2].far.keys())
            }
            if not both and at.gain < 0 and not at.falling():
                steps = self._replaced.by(at)
                both = {steps.path: steps[1:3]} if steps else {}
            if both:
                self._told = True
                yield self._finding(at, moves[-2].step, both)

    def _finding(
        self, at: Standing, first: int, far: Mapping[str, tuple[float, float]]
    ) -> Finding:
        path = max(far, key=lambda path: (far[path][0], path))
        ratio, times = far[path]
        what = f"one step moves {path} by {ratio:.0%} of its norm"
        if ratio < FAR and times >= _GROWTH:
            what = f"{path} has grown to {times:.3g} times its first norm"
        known = not math.isnan(at.constant)
        than = (
            f"a constant answer has {at.constant:.4g}"
            if known
            else f"it began at {at.first:.4g}"
        )
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
                f"Updates are too large: {what}, and the loss is {at.now:.4g}; "
                f"{than}."
            ),
            advice=self.advice,
        )
