"""Readings folded into few columns, however long a run was.

numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.signals import Slot

__all__ = ["LIMIT", "Columns", "Folded"]

LIMIT = 400
"""Columns of a run, at most; even."""

_NEW = {"count": 0, "bad": 0, "total": 0.0, "low": np.inf, "high": -np.inf}
_UFUNCS = {
    "count": np.add,
    "bad": np.add,
    "total": np.add,
    "low": np.minimum,
    "high": np.maximum,
}


class Folded(NamedTuple):
    """The values of one slot, a column each; `None` = not measured.

    Attributes:
        means: of the finite values; NaN where any was not finite.
        lows: the smallest finite ones.
        highs: the largest finite ones.
    """

    means: list[float | None]
    lows: list[float | None]
    highs: list[float | None]


class Columns:
    """Steps in order, in at most `LIMIT` columns of the same width.

    Rows may come in any order: the width doubles when there is no room. What
    is not finite is counted apart, so that no column hides it.

    Args:
        origin: the first step that may come.
    """

    def __init__(self, origin: int) -> None:
        self.width = 1
        self._origin = origin
        self._places: dict[Slot, int] = {}
        self._rows = np.zeros(LIMIT, np.int64)
        self._steps = np.zeros(LIMIT)
        self._sums = {
            name: np.full((LIMIT, 0), new, np.float64)
            for name, new in _NEW.items()
        }

    def add(
        self,
        steps: NDArray[np.int64],
        slots: Iterable[Slot],
        values: NDArray[np.float32],
    ) -> None:
        """Takes rows.

        Args:
            steps: int64 `[B]`, ascending, none before the origin.
            slots: S of them.
            values: float32 `[B, S]`.
        """
        if not len(steps):
            return
        columns = [self._place(slot) for slot in slots]
        while (int(steps[-1]) - self._origin) // self.width >= LIMIT:
            self._double()
        at = np.maximum(steps - self._origin, 0) // self.width
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        at = at[starts]
        self._rows[at] += np.diff(starts, append=len(steps))
        self._steps[at] += np.add.reduceat(steps, starts)
        finite = np.isfinite(values)
        parts: Mapping[str, NDArray[Any]] = {
            "count": finite,
            "bad": ~finite,
            "total": np.where(finite, values, 0),
            "low": np.where(finite, values, np.inf),
            "high": np.where(finite, values, -np.inf),
        }
        cells = np.ix_(at, np.asarray(columns))
        for name, part in parts.items():
            kind = np.float64 if _UFUNCS[name] is np.add else None
            found = _UFUNCS[name].reduceat(part, starts, axis=0, dtype=kind)
            sums = self._sums[name]
            sums[cells] = _UFUNCS[name](sums[cells], found)

    @property
    def steps(self) -> list[float]:
        """The mean step of each column that holds rows."""
        held = self._rows > 0
        means: list[float] = (self._steps[held] / self._rows[held]).tolist()
        return means

    def of(self, signal: str) -> dict[str, Folded]:
        """Returns subject -> values of a signal, in the slots' order."""
        return {
            slot.subject: self._folded(place)
            for slot, place in self._places.items()
            if slot.signal == signal
        }

    def _folded(self, place: int) -> Folded:
        held = self._rows > 0
        count, bad, total, low, high = (
            self._sums[name][held, place] for name in _NEW
        )
        means = np.divide(total, count, out=total * np.nan, where=count > 0)
        means[bad > 0] = np.nan
        rows = (means, count + bad), (low, count), (high, count)
        return Folded(
            *(
                [v if n else None for v, n in zip(row.tolist(), known.tolist())]
                for row, known in rows
            )
        )

    def _place(self, slot: Slot) -> int:
        if slot not in self._places:
            self._places[slot] = len(self._places)
            self._sums = {
                name: np.pad(held, ((0, 0), (0, 1)), constant_values=_NEW[name])
                for name, held in self._sums.items()
            }
        return self._places[slot]

    def _double(self) -> None:
        self.width *= 2
        self._rows = _joined(np.add, self._rows, 0)
        self._steps = _joined(np.add, self._steps, 0.0)
        self._sums = {
            name: _joined(_UFUNCS[name], held, _NEW[name])
            for name, held in self._sums.items()
        }


def _joined(ufunc: np.ufunc, held: NDArray[Any], new: float) -> NDArray[Any]:
    """Returns each two columns as one, and room behind them."""
    joined = ufunc(held[0::2], held[1::2])
    return np.concatenate([joined, np.full_like(joined, new)])
