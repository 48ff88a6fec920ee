"""Capture: installs the watched step in a model and hands readings out.

Between traces the only change on the model is `model.train_function`; at the
end the original function object goes back. Read in Keras 3.15.1:
`backend/tensorflow/trainer.py` (fit, make_train_function, _make_function).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradwatch.capture.anatomy import anatomy
from gradwatch.capture.ring import Ring
from gradwatch.capture.step import WatchedStep
from gradwatch.capture.tap import Tap
from gradwatch.records import Anatomy, Block, Schema
from gradwatch.signals import Slot

__all__ = ["Capture", "Watcher"]

_SYNC_SECONDS = 0.05


class Watcher(Protocol):
    """Who the capture tells; all on the training thread."""

    def opened(self, anatomy: Anatomy, schema: Schema) -> None:
        """The step was traced for the first time, nothing ran yet."""

    def half_full(self) -> None:
        """The ring must be drained now, before the next execution."""

    def latched(self, step: int) -> None:
        """The guard has stopped the run at this step."""

    def failed(self, error: BaseException) -> None:
        """`error` is passing through the train function."""

    def orphaned(self) -> None:
        """Somebody trains the model unwatched; is this run's fit over?"""


class Capture:
    """The watched train function of one model, kept over several fits.

    Args:
        model: a compiled `keras.Model` that `refuse_unsupported` lets pass.
        guarded: whether bad steps are kept from changing the model.
        first_step: the batch number to go on from.
        watcher: is told what happens.
    """

    def __init__(
        self, model: Any, guarded: bool, first_step: int, watcher: Watcher
    ) -> None:
        self.model = model
        self.original = model.train_function
        self._watcher = watcher
        self._first_step = self._read = first_step
        self._planned_steps = 0
        self._schema = Schema()
        self._ring: Ring | None = None
        self._lock = threading.Lock()
        self._ends: deque[tuple[int, float]] = deque()
        self._unsynced = 0
        self._synced = 0.0
        self._step = WatchedStep(model, guarded, self._open_ring)
        self._late = 0
        self.tap = Tap(model._make_function(self._step), self.original, self)

    def install(self) -> None:
        """Puts the tap into the model."""
        if self._ring is not None:
            self._ring.release_latch()
        self._ends = deque([(self._read, time.time())])
        self.tap.installed = time.monotonic_ns()
        self.model.train_function = self.tap

    def plan(self, steps: int) -> None:
        """Takes the number of training batches to come; 0 = unknown."""
        self._planned_steps = steps and self.count + steps
        if self._ring is not None:
            self._tell_opened()

    def fits(self, model: Any) -> bool:
        """Whether Keras would use its own train function again, as it is."""
        return self.model is model and model.train_function is self.original

    def uninstall(self) -> None:
        """Puts the original function object back, if ours still stands."""
        if self.model.train_function is self.tap:
            self.model.train_function = self.original

    def _open_ring(self, slots: tuple[Slot, ...]) -> Ring:
        self._schema = Schema(slots, self._first_step)
        self._ring = Ring(len(slots), self._executes, self._first_step)
        self._tell_opened()
        return self._ring

    def _tell_opened(self) -> None:
        with tf.init_scope():  # the weights have values outside of the trace
            facts = anatomy(self.model, self._planned_steps)
        self._watcher.opened(facts, self._schema)

    @property
    def _executes(self) -> int:
        """Steps of one execution; `"auto"` stays a string in Keras."""
        steps = self.model.steps_per_execution
        return steps if isinstance(steps, int) else 1

    @property
    def count(self) -> int:
        """Training batches seen so far. Waits for the device."""
        ring = self._ring
        return ring.progress()[0] if ring else self._first_step

    def executed(self, ended: float) -> None:
        """Looks at the device's counters; the tap calls it.

        On a GPU it looks at most 20 times a second, since looking waits for
        the device; a bad step has set the latch there meanwhile.
        """
        ring = self._ring
        if ring is None:
            return
        if len(self._step.late) > self._late:
            self._late = len(self._step.late)
            self.tap.function = self.model._make_function(self._step)
        self._unsynced += self._executes
        if (
            ring.on_cpu
            or ended - self._synced >= _SYNC_SECONDS
            or 4 * self._unsynced >= ring.capacity
        ):
            self.look(ended)

    def look(self, now: float) -> None:
        """Looks at the device's counters now, `now` in Unix seconds."""
        ring = self._ring
        if ring is None:
            return
        self._synced, self._unsynced = now, 0
        count, latched = ring.progress()
        self._ends.append((count, now))
        if count - self._read >= ring.capacity // 2:
            self._watcher.half_full()
        if latched >= 0:
            self._watcher.latched(latched)

    def failed(self, error: BaseException) -> None:
        """Passes on; the tap calls it."""
        self._watcher.failed(error)

    def orphaned(self) -> None:
        """Passes on; the tap calls it."""
        self._watcher.orphaned()

    def drain(self) -> Block | None:
        """Returns the readings since the last call, `None` if there are none.

        Any thread; each reading is handed out once.
        """
        with self._lock:
            ring = self._ring
            if ring is None:
                return None
            now = time.time()
            count, _ = ring.progress()
            if count == self._read:
                return None
            first = max(self._read, count - ring.capacity)
            values = ring.rows(first, count)
            steps = np.arange(first, count, dtype=np.int64)
            self._read = count
            xray = np.zeros(len(steps), np.bool_)
            return Block(steps, self._times(steps, now), values, xray)

    def _times(
        self, steps: NDArray[np.int64], now: float
    ) -> NDArray[np.float64]:
        """When each step ended: exact at executions' ends, linear between."""
        last = int(steps[-1]) + 1
        ends = list(self._ends)
        if ends[-1][0] < last:
            ends.append((last, now))
        while len(self._ends) > 1 and self._ends[1][0] <= last:
            self._ends.popleft()
        counts, times = zip(*ends)
        return np.interp(steps + 1, counts, times)
