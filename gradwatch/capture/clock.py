"""The clock: when steps ended and how long they took, seen from the host."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clock", "Times"]


class _Mark(NamedTuple):
    """What was known when the device's counter was looked at.

    Attributes:
        batches: training batches finished.
        ended: Unix seconds.
        busy: seconds spent in the train function since the run began.
    """

    batches: int
    ended: float
    busy: float


class Times(NamedTuple):
    """Of B steps.

    Attributes:
        ended: float64 `[B]`, Unix seconds: exact where an execution ended,
            linear between.
        seconds: float64 `[B]`, time in the train function; of an execution of
            several steps each has its share.
    """

    ended: NDArray[np.float64]
    seconds: NDArray[np.float64]


class Clock:
    """Written by the training thread, read by the one that drains."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: deque[_Mark] = deque()
        self._busy = self._returned = 0.0

    def begin(self, count: int, now: float) -> None:
        """Training begins, or goes on, with batch `count`."""
        with self._lock:
            self._marks = deque([_Mark(count, now, self._busy)])

    @property
    def busy(self) -> float:
        """Seconds spent in the train function since the run began."""
        return self._busy

    def executed(self, seconds: float) -> None:
        """An execution took `seconds`."""
        self._busy += seconds

    def returned(self, began: float, on_cpu: bool) -> float:
        """Returns the seconds of an execution whose call has returned.

        A GPU goes on then: there it is the time since the one before, if that
        was not a pause.

        Args:
            began: `time.perf_counter()` at the call.
            on_cpu: whether the step has ended.
        """
        now, before = time.perf_counter(), self._returned
        self._returned = now
        seconds = now - (began if on_cpu or not before else before)
        self.executed(seconds)
        return seconds

    def pause(self) -> None:
        """What follows is no step's time."""
        self._returned = 0.0

    def mark(self, count: int, now: float) -> None:
        """`count` batches had finished at `now`."""
        with self._lock:
            if len(self._marks) > 1 and self._marks[-1].batches == count:
                self._marks.pop()
            self._marks.append(_Mark(count, now, self._busy))

    def times(self, steps: NDArray[np.int64], now: float) -> Times:
        """Returns the times of `steps`, ascending; earlier ones are forgotten.

        Args:
            steps: int64 `[B]`.
            now: Unix seconds, an upper end for those not marked yet.
        """
        last = int(steps[-1]) + 1
        with self._lock:
            marks = list(self._marks)
            while len(self._marks) > 1 and self._marks[1].batches <= last:
                self._marks.popleft()
        if marks[-1].batches < last:
            # Still in an execution of several steps: it began at the mark.
            before = marks[-1]
            busy = before.busy + max(now - before.ended, 0.0)
            marks.append(_Mark(last, now, busy))
        counts, ended, spent = (np.array(column) for column in zip(*marks))
        after = np.searchsorted(counts, steps, side="right")
        after = after.clip(1, len(counts) - 1)
        number = (counts[after] - counts[after - 1]).clip(1)
        seconds = (spent[after] - spent[after - 1]) / number
        return Times(np.interp(steps + 1, counts, ended), seconds)
