"""Climbing: a series leaves all that it was before, and goes on rising."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Climb", "Climbing", "falls_faster"]


class Climb(NamedTuple):
    """A climb that was seen.

    Attributes:
        first_step: the last step before it.
        step: the step at which it is sure.
        before: the largest value up to `first_step`.
        now: the value at `step`.
    """

    first_step: int
    step: int
    before: float
    now: float

    def evidence(self, signal: str) -> dict[str, Any]:
        """Returns the numbers that show the climb of a signal."""
        return {
            f"{signal}_before": self.before,
            f"{signal}_now": self.now,
            "since_step": self.first_step,
        }


class Climbing:
    """Looks for climbs at each row, however Blocks are cut.

    At each of some time scales `lag`: the smallest of the last values is more
    than `factor` times the largest of all that are at least `lag` rows old.
    One high value is no climb, nor is a return to where the series has been.

    Args:
        scales: lag, rows that must be high, factor; each in rows.
    """

    def __init__(self, scales: Sequence[tuple[int, int, float]]) -> None:
        self._scales = scales
        self._longest = max(lag for lag, *_ in scales)
        self._factor = min(factor for *_, factor in scales)
        self._steps = np.zeros(0, np.int64)
        self._values = np.zeros(0)
        self._largest = -np.inf  # of what is not kept any more

    def look(
        self,
        steps: NDArray[np.int64],
        values: NDArray[np.float64],
        allowed: NDArray[np.bool_],
    ) -> Climb | None:
        """Returns the first climb in the next rows.

        Args:
            steps: int64 `[B]`.
            values: float64 `[B]`, at least 0; those that are not finite are
                left out.
            allowed: bool `[B]`, the rows at which a climb may be seen.
        """
        finite = np.isfinite(values)
        new = np.flatnonzero(allowed[finite]) + len(self._steps)
        fresh = values[finite]
        steps = np.concatenate([self._steps, steps[finite]])
        values = np.concatenate([self._values, values[finite]])
        # What came first bounds from below what any climb is compared with.
        least = max(self._largest, float(values[0])) if len(values) else 0.0
        low = not len(fresh) or fresh.max() <= self._factor * least
        if low or not len(new):
            self._forget(steps, values)
            return None
        largest = np.maximum.accumulate(np.append(self._largest, values))
        found = [
            self._at(scale, new, values, largest) for scale in self._scales
        ]
        rows = [row for row in found if row is not None]
        climb = None
        if rows:
            row, lag = min(rows)
            before = float(largest[row - lag + 1])
            first, now = int(steps[row - lag]), float(values[row])
            climb = Climb(first, int(steps[row]), before, now)
        self._forget(steps, values)
        return climb

    def _forget(
        self, steps: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        """Keeps what the longest time scale needs, of the rest the largest."""
        gone = max(0, len(values) - self._longest)
        if gone:
            self._largest = max(self._largest, float(values[:gone].max()))
        self._steps, self._values = steps[gone:], values[gone:]

    def _at(
        self,
        scale: tuple[int, int, float],
        new: NDArray[np.int64],
        values: NDArray[np.float64],
        largest: NDArray[np.float64],
    ) -> tuple[int, int] | None:
        """First row of a climb on one time scale that is new, and its lag."""
        lag, high, factor = scale
        if len(values) <= lag:
            return None
        windows = np.lib.stride_tricks.sliding_window_view(values, high)
        lowest = windows.min(1)[lag - high + 1 :]  # of rows lag, lag + 1, ...
        before = largest[1:][: len(values) - lag]
        rows = np.flatnonzero(lowest > factor * before) + lag
        rows = rows[np.isin(rows, new)]
        return (int(rows[0]), lag) if len(rows) else None


def falls_faster(
    known: NDArray[np.float64],
    new: int,
    width: int,
    spacing: int,
    falls: int,
    factor: float,
) -> NDArray[np.bool_]:
    """Whether a series is below zero and falls faster and faster.

    Args:
        known: float64 `[N]`, rows before the new ones, and these.
        new: how many the new ones are.
        width: rows of a mean.
        spacing: rows from one mean to the next.
        falls: how many are compared.
        factor: how much larger than the one before each has to be.

    Returns:
        Bool `[new]`.
    """
    rows = len(known) - new + np.arange(new)
    padded = np.concatenate([np.zeros(1), np.cumsum(np.nan_to_num(known))])
    unknown = np.concatenate([np.zeros(1), np.cumsum(~np.isfinite(known))])
    ends = rows[:, None] + 1 - spacing * np.arange(falls + 1)
    means = (padded[ends] - padded[ends - width]) / width
    last = means[:, 1:] - means[:, :-1]
    seen = unknown[ends[:, 0]] == unknown[ends[:, -1] - width]
    grows = (last[:, :-1] > factor * last[:, 1:]).all(1) & (last[:, 0] > 0)
    found: NDArray[np.bool_] = seen & grows & (known[rows] < 0)
    for i in np.flatnonzero(found):
        noise = _noise(known[rows[i] - 2 * width : rows[i] + 1])
        error = noise * np.sqrt(2 / width)
        found[i] = last[i, 0] - last[i, 1] > 3 * error
    return found


def _noise(values: NDArray[np.float64]) -> float:
    """Standard deviation of what scatters around a trend."""
    steps = np.diff(values, 2)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / 6**0.5)
