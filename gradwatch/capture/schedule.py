"""When to take an X-ray: planned steps, thinned out to keep a budget.

Pure: no clock, no graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

__all__ = ["FIRST", "Schedule"]

FIRST = (10, 20, 50, 100)
"""Early steps with an X-ray: most that can be wrong is wrong from the start."""

_BASELINE = 5  # everyday executions without which no share can be told
_UNTIL_THEN = 4  # X-rays before there is a baseline
_KEPT = 101  # newest everyday executions that the baseline is made of


class Schedule:
    """Chooses the executions that are X-rays.

    An X-ray is due at the steps `FIRST` and at the multiples of `every_steps`,
    or in the first execution that begins at or after one; where updates are
    collected first, in the next one whose first step applies them, which is
    asked once for each X-ray (a bad step may shift it). It is put off as long
    as X-rays would cost more than `budget`: their cost is the time that they
    took beyond the median everyday execution; the share is that cost, over the
    time of all executions since the first step.

    Args:
        every_steps: 0 = never.
        budget: share of the executions' time that X-rays may take, `(0, 1]`.

    Attributes:
        every_steps: as above.
        share: the share that X-rays have cost so far.
    """

    def __init__(self, every_steps: int, budget: float) -> None:
        self.share = 0.0
        self.every_steps = every_steps
        self._budget = budget
        self._next = self._after(-1)
        self._everyday: deque[float] = deque(maxlen=_KEPT)
        self._taken = self._executions = 0
        self._waited = False
        self._began = -1
        self._cost = self._time = 0.0

    def due(self, step: int, wait: Callable[[], int] = int) -> bool:
        """Whether the execution that begins at `step` is to be an X-ray.

        Called before each execution; one that cannot be paid for is put off.

        Args:
            step: the first one of the execution.
            wait: returns the steps to the next execution that shows an update.
        """
        if not self.every_steps or step < self._next:
            return False
        if not self._affords(step):
            self._waited = False
            return False
        steps = 0 if self._waited else wait()
        self._waited = True
        self._next = step + steps
        return steps == 0

    def _affords(self, step: int) -> bool:
        """Whether the budget allows an X-ray now; if not, it is put off."""
        if len(self._everyday) < _BASELINE:
            return self._taken < _UNTIL_THEN
        everyday = self.everyday
        cost = self._cost + (self._cost / self._taken if self._taken else 0.0)
        wait = cost / self._budget - self._time
        if wait <= 0:
            return True
        steps = (step - self._began) // max(self._executions, 1)
        self._next = step + max(1, steps) * max(1, int(wait / everyday))
        return False

    @property
    def everyday(self) -> float:
        """Seconds of the median everyday execution, 0 before there is one."""
        return float(np.median(self._everyday)) if self._everyday else 0.0

    def executed(self, step: int, seconds: float) -> None:
        """An everyday execution that began at `step` took `seconds`."""
        self._everyday.append(seconds)
        self._began = step if self._began < 0 else self._began
        self._executions += 1
        self._add(seconds, 0.0)

    def taken(self, step: int, seconds: float | None) -> None:
        """An X-ray that began at `step` took `seconds`.

        Args:
            step: the first step of its execution.
            seconds: `None` for one that was traced first: the time of a trace
                is told by itself and is no running cost.
        """
        self._next = self._after(step)
        self._waited = False
        self._taken += 1
        if seconds is not None:
            self._add(seconds, max(seconds - self.everyday, 0.0))

    def _add(self, seconds: float, cost: float) -> None:
        self._time += seconds
        self._cost += cost
        self.share = self._cost / self._time if self._time else 0.0

    def _after(self, step: int) -> int:
        """The first planned step after `step`."""
        if not self.every_steps:
            return 0
        regular = (max(step, 0) // self.every_steps + 1) * self.every_steps
        return min([regular, *(s for s in FIRST if s > step)])
