"""Windows: rows cut by their step numbers, however Blocks were cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Block, Record

__all__ = ["Window", "Windows", "together"]


class Window(NamedTuple):
    """The recorded rows of some steps in a row.

    Attributes:
        steps: int64 `[N]`, ascending; fewer than the size where not every step
            was recorded.
        values: float32 `[N, C]`, of the chosen columns.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float32]


def together(columns: Sequence[int]) -> slice | list[int]:
    """Returns what picks columns: of neighbours a slice, which copies none."""
    known = list(columns)
    first = known[0] if known else 0
    found = slice(first, first + len(known))
    return found if known == list(range(found.start, found.stop)) else known


class Windows:
    """Cuts Blocks into windows: steps `n * size` to `(n + 1) * size - 1`.

    A window comes when its last step is there, or a later one; so the last one
    of a run may never come.

    Args:
        size: steps of a window.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.begin(())

    def begin(self, columns: Sequence[int]) -> None:
        """Takes the columns of a new Schema; forgets an incomplete window."""
        self._columns = together(columns)
        self._steps: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float32]] = []

    def cut(self, record: Record) -> Iterator[Window]:
        """Yields the windows that the next record completes."""
        if not isinstance(record, Block) or not len(record):
            return
        numbers = record.steps // self._size
        values = record.values[:, self._columns]
        ends = [*np.flatnonzero(np.diff(numbers)) + 1, len(record)]
        last = self._size - 1
        start = 0
        for end in ends:
            if (
                self._steps
                and self._steps[0][0] // self._size != numbers[start]
            ):
                yield self._take()
            part = Window(record.steps[start:end], values[start:end])
            complete = record.steps[end - 1] % self._size == last
            if complete and not self._steps:
                yield part
            else:
                self._steps.append(part.steps)
                self._values.append(part.values)
                if complete:
                    yield self._take()
            start = end

    def _take(self) -> Window:
        steps, values = self._steps, self._values
        self._steps, self._values = [], []
        return Window(np.concatenate(steps), np.concatenate(values))
