"""Rollback: a model goes back to where it was, and on with a smaller rate.

Snapshots are taken between executions, on the training thread, as often as that
costs below 1 % of the time spent in executions: at least 64 steps apart, and
after ten minutes of training at the latest. What a fit begins with is one, too.
Everything here is on the host; the device has set the latch meanwhile, so that
no step changes anything.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from gradwatch.capture.rates import Rates
from gradwatch.capture.snapshots import Snapshots

__all__ = ["Rollback"]

_log = logging.getLogger(__name__)

_BUDGET = 0.01
_LEAST_STEPS = 64
_MOST_SECONDS = 600.0
_LOSSES, _FAR = 4, 10.0  # as for `diverging_loss`
_Losses = Callable[[int, int], NDArray[np.float32]]


class Rollback:
    """Takes snapshots of a model, and puts it back.

    None is taken while the loss climbs: the last 4 are more than 10 times all
    that it was, and higher than when one was due before. A model that diverges
    is finite for a while, and of no use.

    A model that makes variables only in its first execution (an optimizer of a
    `train_step` of its own) begins with what it is after that one; until then
    it stays as it was before the bad step.

    Args:
        model: the `keras.Model`.
        factor: see `Rates`.
        folder: where snapshots lie on the disk; `None` = in memory.

    Attributes:
        rates: the learning rates.
    """

    def __init__(
        self, model: Any, factor: float, folder: Path | None = None
    ) -> None:
        self._model = model
        self.rates = Rates(model, factor)
        self._snapshots = Snapshots(model, self.rates.variables, folder)
        self._since = self._cost = 0.0
        self._failed = False
        self.begin()

    def begin(self) -> None:
        """A fit begins; what was before is another story."""
        self._snapshots.forget()
        self._first = self._next = -1
        self._highest: float | None = None
        self._before = 0.0
        self._uncounted = self._whole = False

    def executes(self, step: int) -> None:
        """An execution is about to begin, with `step`."""
        if self._first < 0:
            with self._logged("No snapshot was taken"):
                self._start(step)
        if self._uncounted:
            self._model.reset_metrics()
            self._uncounted = False

    def _start(self, step: int) -> None:
        self._snapshots.forget()
        self._first, self._next = step, step + _LEAST_STEPS
        self._take(step)

    def executed(
        self,
        step: int,
        seconds: float,
        losses: _Losses,
    ) -> None:
        """Executions have ended, and none of their steps was bad.

        Args:
            step: batches seen so far.
            seconds: spent in executions so far.
            losses: returns those of the steps from one to another.
        """
        with self._logged("No snapshot was taken"):
            self._look(step, seconds, losses)

    def _look(self, step: int, seconds: float, losses: _Losses) -> None:
        if not self._whole:
            self._whole = True
            if not self._snapshots.whole():
                self._start(step)
        if self._highest is None and step >= self._first + _LOSSES:
            known = np.abs(losses(self._first, self._first + _LOSSES))
            self._highest = float(known.max())
        pause = min(self._cost / _BUDGET, _MOST_SECONDS)
        if step < self._next or seconds - self._since < pause:
            return
        self._since, self._next = seconds, step + _LEAST_STEPS
        if not self._climbs(np.abs(losses(step - _LOSSES, step))):
            self._take(step)

    def _climbs(self, losses: NDArray[np.float32]) -> bool:
        low, high = float(losses.min()), float(losses.max())
        highest = self._highest or high
        climbs = low > _FAR * highest and high > self._before
        self._before = high
        if not climbs:
            self._highest = max(highest, high)
        return climbs

    def _take(self, step: int) -> None:
        began = time.perf_counter()
        self._snapshots.take(step)
        self._cost = time.perf_counter() - began

    def distance(self, step: int) -> int:
        """Returns how many steps a rollback from `step` takes back.

        Itself among them, which has changed nothing; 0 if none is possible.
        """
        with self._logged("The model cannot be put back"):
            if self._snapshots:
                before = self._snapshots.before(step)
                return step + 1 - before if self._snapshots.whole() else 1
        return 0

    def put_back(self, step: int) -> bool:
        """Gives the model back what `distance` has chosen.

        Args:
            step: batches seen so far.

        Returns:
            Whether it has it.
        """
        self._next = step + _LEAST_STEPS
        with self._logged("The model cannot be put back"):
            if not self._snapshots:
                return False
            if self._snapshots.newest <= self._first:  # nothing was good yet
                self._first, self._highest = step, None
            if self._snapshots.whole():
                self._snapshots.put_back()
            self._mark_metrics()
            return True
        return False

    @contextlib.contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        """An exception inside (no memory, say) is told once."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                _log.warning("gradwatch: %s: %r", what, error)
            self._failed = True

    def _mark_metrics(self) -> None:
        """Makes NaN of metrics that have counted nothing, until they do.

        An epoch whose steps all came to nothing would show a loss of 0, the
        best one ever.
        """
        tracker = getattr(self._model, "_loss_tracker", None)
        if tracker is None or float(tracker.count.numpy()) > 0:
            return
        for variable in self._model.metrics_variables:
            if keras.backend.is_float_dtype(variable.dtype):
                nan = keras.ops.full(variable.shape, np.nan, variable.dtype)
                variable.assign(nan)
        self._uncounted = True
