"""Thinning: which rows are recorded, and which are shown as scalars.

Pure: numpy and the standard library, no clock, no I/O. The same records give
the same choice. Two choices are independent: packed readings thin out by the
step number (`Recorder`), plain scalars by the rows' own times (`Pace`).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Block, Finding, Schema

__all__ = ["FINDINGS", "WINDOW", "Pace", "Recorder", "stride"]

WINDOW = 64
"""Steps before and after a finding whose readings are complete."""

FINDINGS = 100
"""Findings, the first of a run, that have such a window."""

_BUFFER = 512  # left-out rows kept, so that a window can begin in the past
_RARE = 8  # stride up to which all X-ray rows are recorded


def stride(used: int, budget: int) -> int:
    """Returns 1, doubled each time a quarter of what remained has been used.

    So the budget is never reached, and each stride lasts 1.5 times as many
    steps as the one before. Doubling at half of what remains would let all
    strides last equally long: the longer a run the faster it would fade, to one
    row in a million after 20 times the steps that were recorded in full.

    Args:
        used: bytes written so far.
        budget: bytes allowed in all.
    """
    remaining = min(max(budget - used, 1), budget)
    return 1 << int(math.log(budget / remaining) / math.log(4 / 3) + 1e-9)


class Recorder:
    """Chooses the rows of the packed readings.

    A row is recorded if its step is a multiple of cadence times stride, or if
    it is in a finding's window: `WINDOW` steps around the finding's first and
    around its last step. The last `_BUFFER` rows that were left out are kept
    for findings that come after them.

    X-ray rows are few and tell most: all are recorded, whatever the cadence,
    up to a stride of `_RARE`, and one in every stride / `_RARE` beyond it. Were
    they never thinned out, they alone would fill the budget of a long run.

    Args:
        every_steps: the cadence.
    """

    def __init__(self, every_steps: int) -> None:
        self._every_steps = every_steps
        self._xrays = 0
        self._findings = 0
        self._centres = np.zeros(0, np.int64)
        self._left: deque[tuple[Schema, Block]] = deque()

    def add(self, finding: Finding) -> list[tuple[Schema, Block]]:
        """Opens a finding's window.

        Returns:
            Rows of the window that had been left out, in the run's order.
        """
        if self._findings == FINDINGS:
            return []
        self._findings += 1
        steps = [*self._centres, finding.first_step, finding.last_step]
        self._centres = np.unique(np.asarray(steps, np.int64))
        late = []
        for _ in range(len(self._left)):
            schema, block = self._left.popleft()
            inside = self.inside(block.steps)
            if inside.any():
                late.append((schema, block.rows(inside)))
            if not inside.all():
                self._left.append((schema, block.rows(~inside)))
        return late

    def record(self, schema: Schema, block: Block, stride: int) -> Block:
        """Returns the rows of `block` to record now; keeps the others.

        Args:
            schema: names the columns of `block`.
            block: the next rows of the run.
            stride: by how much recording is thinned out beyond the cadence.
        """
        chosen = block.steps % (self._every_steps * stride) == 0
        chosen |= self.inside(block.steps) | self._xray(block, stride)
        if chosen.all():
            return block
        self._left.append((schema, block.rows(~chosen)))
        kept = sum(len(left) for _, left in self._left)
        while kept - len(self._left[0][1]) >= _BUFFER:
            kept -= len(self._left.popleft()[1])
        return block.rows(chosen)

    def _xray(self, block: Block, stride: int) -> NDArray[np.bool_]:
        """Bool `[B]`: the X-ray rows to record; counts all of them."""
        numbers = self._xrays + np.cumsum(block.xray) - 1
        self._xrays += int(block.xray.sum())
        due = numbers % max(stride // _RARE, 1) == 0
        return np.asarray(block.xray & due)

    def inside(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Bool `[B]`: whether a step is in a finding's window."""
        if not len(self._centres):
            return np.zeros(len(steps), np.bool_)
        after = np.searchsorted(self._centres, steps)
        before = self._centres[np.maximum(after - 1, 0)]
        after = self._centres[np.minimum(after, len(self._centres) - 1)]
        near = np.minimum(np.abs(steps - before), np.abs(steps - after))
        return np.asarray(near <= WINDOW)


class Pace:
    """Chooses rows so that their values do not exceed a rate.

    Over any stretch of T seconds of the rows' times that is at most T times
    the rate, one row, and the rows that were forced; what these cost is saved
    on later rows.

    Args:
        rate: values a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = -np.inf
        self._last = -np.inf

    def choose(
        self,
        times: NDArray[np.float64],
        forced: NDArray[np.bool_],
        cost: float,
    ) -> NDArray[np.bool_]:
        """Returns bool `[B]`: the rows to show.

        Args:
            times: float64 `[B]`, Unix seconds of the rows.
            forced: bool `[B]`, rows to show in any case.
            cost: values a row.
        """
        chosen = forced.copy()
        pause = cost / self._rate
        for row, time in enumerate(times.tolist()):
            if time < self._last:  # the clock was set back
                self._due = min(self._due, time + pause)
            self._last = time
            if chosen[row] or time >= self._due:
                chosen[row] = True
                self._due = max(self._due, time) + pause
        return chosen
