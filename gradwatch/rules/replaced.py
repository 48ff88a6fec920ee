"""Replaced: kernels that steps have carried as far as their whole norm."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Block, Record, Schema
from gradwatch.rules.standing import Standing

__all__ = ["BOLD", "Replaced", "Steps"]

BOLD = 0.1
"""Norm of an update over that of its weights: from here on it is bold."""

_KEPT = 0.5
_RECENT = 18  # a window that is not complete, and two X-rays before


class Steps(NamedTuple):
    """Steps that have replaced a kernel.

    Attributes:
        path: of the kernel.
        ratio: norm of a step over that of the kernel.
        growth: the kernel's norm over that at the start.
        first: number of the first X-ray that says so.
    """

    path: str
    ratio: float
    growth: float
    first: int


class Replaced:
    """Follows how far steps carry kernels, X-ray by X-ray.

    Steps move a kernel by r of its norm (geometric mean of the last two X-rays,
    so that one large step does not count), a tenth or more, where 0.01 to 0.1
    is bold already; and r^2 times half of the steps so far is 1 or more: even
    steps at random, whose squares add up, have carried it as far as its whole
    norm since the middle of the run. What it had learned before is gone. A
    kernel below half of the norm it began with does not count: one that has
    nothing to tell goes to 0, and all steps are large there. Nor do those that
    began as zeros, or have one axis.
    """

    def __init__(self, anatomy: Anatomy, schema: Schema) -> None:
        weights, updates = (
            schema.columns(f"variable_{what}_norm")
            for what in ("weight", "update")
        )
        known = [
            v
            for v in anatomy.variables
            if v.path in weights and v.path in updates
            if v.trainable and len(v.shape) > 1 and v.scale > 0
        ]
        self._paths = [v.path for v in known]
        self._start = np.array(
            [v.scale * math.sqrt(math.prod(v.shape)) for v in known]
        )
        self._weights = [weights[path] for path in self._paths]
        self._updates = [updates[path] for path in self._paths]
        self._applied = schema.column("update_applied")
        self._seen: list[
            tuple[int, NDArray[np.float64], NDArray[np.float64]]
        ] = []

    def take(self, record: Record) -> None:
        """Takes the X-rays of a record whose update was applied."""
        if not isinstance(record, Block) or not self._paths:
            return
        del self._seen[:-_RECENT]
        for place in np.flatnonzero(record.xray).tolist():
            row = record.values[place].astype(float)
            if self._applied is None or not row[self._applied] > 0:
                continue
            weights, updates = row[self._weights], row[self._updates]
            growth = weights / self._start
            kept = (growth >= _KEPT) & np.isfinite(updates)
            ratios = np.divide(
                updates, weights, out=np.zeros(len(kept)), where=kept
            )
            self._seen.append((int(record.steps[place]), ratios, growth))

    def by(self, at: Standing) -> Steps | None:
        """Returns the largest steps that have replaced a kernel, if any."""
        while len(self._seen) > 2 and self._seen[2][0] <= at.step:
            del self._seen[0]
        seen = [each for each in self._seen if each[0] <= at.step]
        if len(seen) < 2:
            return None
        (first, before, _), (_, now, growth) = seen
        ratios = np.sqrt(before * now)
        most = int(ratios.argmax())
        ratio = float(ratios[most])
        if ratio < BOLD or ratio**2 * at.seen / 2 < 1:
            return None
        return Steps(self._paths[most], ratio, float(growth[most]), first)
