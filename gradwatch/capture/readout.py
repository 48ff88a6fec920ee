"""The readout: from the device's variables to Blocks on the host."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.capture.album import Album
from gradwatch.capture.clock import Clock
from gradwatch.capture.ring import Progress, Ring
from gradwatch.policy import Policy
from gradwatch.records import Block, Schema
from gradwatch.signals import Slot

__all__ = ["Readout"]

_HOST = (Slot("step_time"), Slot("examples_per_second"))
_BACK = (Slot("rollback_steps"),)
_HELD = (Slot("update_held"),)
_XRAY = (Slot("xray_share"), Slot("xray_trace"))


class Readout:
    """Hands out what the device has measured; each reading once.

    Args:
        first_step: the batch number to go on from.
        steps_per_execution: training batches of one execution.
        policy: see `Ring`.

    Attributes:
        everyday: what the columns of the ring mean.
    """

    def __init__(
        self, first_step: int, steps_per_execution: int, policy: Policy
    ) -> None:
        self.ring = Ring(first_step, policy)
        self.clock = Clock()
        self.album: Album | None = None
        self.schema = Schema((), first_step)
        self.everyday: tuple[Slot, ...] = ()
        self._first_step = self._read = first_step
        self._executes = steps_per_execution
        self._notes: dict[int, list[float]] = {}
        self._held: int | None = None
        self._backs: dict[int, int] = {}
        self._decided = -1
        self._holds: list[range] = []
        self._lock = threading.Lock()

    def start(self, step: int) -> None:
        """Counts from `step` on; nothing was measured yet."""
        self._first_step = self._read = step
        self.schema = Schema((), step)
        self.ring.start(step)
        self.begin()

    def open(self, slots: tuple[Slot, ...], album: Album | None) -> None:
        """Takes what an everyday step measures, and where X-rays go."""
        rare = (*_XRAY, *album.scalars) if album else ()
        host = (*_HOST, *self._more)
        self.album, self.everyday = album, slots
        self.schema = Schema((*slots, *host, *rare), self._first_step)
        self.ring.open(len(slots), self._executes)

    def begin(self) -> None:
        """Training begins, or goes on."""
        self.clock.begin(self._read, time.time())

    @contextlib.contextmanager
    def xray(self, step: int) -> Iterator[list[float]]:
        """An X-ray of `step` is being taken; nothing from there on is read.

        Yields:
            A list to be filled: the share of X-rays in the executions' time so
            far, and the seconds that tracing it took, NaN if it was traced
            before.
        """
        note: list[float] = []
        self._held = step
        try:
            yield note
        finally:
            self._notes[step] = note
            self._held = None

    @property
    def _more(self) -> tuple[Slot, ...]:
        """What the host measures of the policy."""
        policy = self.ring.policy
        if policy.rolls_back:
            return _BACK
        return _HELD if policy.skips and self._executes > 1 else ()

    def release(self, held: bool) -> Progress:
        """The batch that is kept was looked at: updates are made again.

        Args:
            held: see `Ring.release_kept`.

        Returns:
            Where the device stands then.
        """
        with self._lock:
            at = self.ring.release_kept(held and self._more == _HELD)
            if at.held >= 0:
                end = at.latched if at.stopped else at.seen
                self._holds.append(range(at.held + 1, end))
        return self.ring.progress()

    def decide(self, latched: int, steps: int) -> None:
        """Takes what follows from a latch: a rollback by so many steps.

        Until then its row is not handed out, nor are those after it.
        """
        self._backs[latched] = steps
        self._decided = latched

    def undecided(self, latched: int) -> bool:
        """Whether `decide` is to be called for a latch."""
        back = self.ring.policy.rolls_back
        return back and latched >= 0 and latched != self._decided

    def losses(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns those of steps that the ring still holds."""
        column = self.everyday.index(Slot("loss"))
        return self.ring.rows(first, last)[:, column]

    def crowded(self, count: int) -> bool:
        """Whether it must be read soon, after `count` batches."""
        album = self.album
        return count - self._read >= self.ring.capacity // 2 or (
            album is not None and 2 * len(self._notes) >= album.capacity
        )

    def drain(self) -> Block | None:
        """Returns the readings since the last call, `None` if there are none.

        Any thread.
        """
        with self._lock:
            if not self.ring.capacity:
                return None
            now = time.time()
            held = self._held
            at = self.ring.progress()
            count = at.seen if held is None else min(at.seen, held)
            if self.undecided(at.latched):
                count = min(count, at.latched)
            if at.held >= 0:  # not known yet until when
                count = min(count, at.held + 1)
            if count <= self._read:
                return None
            first = max(self._read, count - self.ring.capacity)
            self._read = count
            return self._block(np.arange(first, count, dtype=np.int64), now)

    def _block(self, steps: NDArray[np.int64], now: float) -> Block:
        first, last = int(steps[0]), int(steps[-1]) + 1
        shape = (len(steps), len(self.schema.slots))
        values = np.full(shape, np.nan, np.float32)
        everyday = len(self.everyday)
        values[:, :everyday] = self.ring.rows(first, last)
        times = self.clock.times(steps, now)
        values[:, everyday] = times.seconds
        if Slot("examples") in self.everyday:
            examples = values[:, self.everyday.index(Slot("examples"))]
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = examples / times.seconds
            values[:, everyday + 1] = np.where(times.seconds > 0, rate, np.nan)
        rare = everyday + len(_HOST) + len(self._more)
        if self._more == _BACK:
            backs = [self._backs.pop(step, 0) for step in steps.tolist()]
            values[:, rare - 1] = backs
        elif self._more:
            fine = values[:, self.everyday.index(Slot("nonfinite"))] == 0
            held = [np.isin(steps, each) for each in self._holds]
            values[:, rare - 1] = fine & np.any(held, axis=0)
            self._holds = [each for each in self._holds if each.stop > last]
        xray = np.zeros(len(steps), np.bool_)
        histograms: Mapping[Slot, Any] = {}
        if self.album is not None:
            pictures = self.album.read(first, last)
            for row, step in enumerate(pictures.steps.tolist()):
                xray[step - first] = True
                note = self._notes.pop(step, [])
                values[step - first, rare : rare + len(note)] = note
                values[step - first, rare + len(_XRAY) :] = pictures.scalars[
                    row
                ]
            # Those of X-rays that never arrived.
            self._notes = {s: n for s, n in self._notes.items() if s >= last}
            slots = self.album.histograms
            histograms = {
                slot: pictures.histograms[:, i] for i, slot in enumerate(slots)
            }
        return Block(steps, times.ended, values, xray, histograms)
