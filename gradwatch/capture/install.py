"""Capture: installs the watched step in a model and hands readings out.

Between traces the only change on the model is `model.train_function`; at the
end the original function object goes back. Read in Keras 3.15.1:
`backend/tensorflow/trainer.py` (fit, make_train_function).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import tensorflow as tf

from gradwatch.capture.album import Album
from gradwatch.capture.anatomy import anatomy
from gradwatch.capture.box import Box
from gradwatch.capture.build import build_ahead
from gradwatch.capture.evidence import Evidence, evidence
from gradwatch.capture.function import TrainFunction
from gradwatch.capture.loop import Loop
from gradwatch.capture.optimizer import inner, until_update
from gradwatch.capture.readout import Readout
from gradwatch.capture.ring import Progress
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.step import WatchedStep, executes
from gradwatch.capture.tap import Tap
from gradwatch.capture.watcher import Watcher
from gradwatch.capture.xray import planned
from gradwatch.policy import Policy
from gradwatch.records import Block
from gradwatch.signals import Slot

__all__ = ["Capture"]

_SYNC_SECONDS = 0.05


class Capture:
    """The watched train function of one model, kept over several fits.

    Args:
        model: a compiled `keras.Model` that `refuse_unsupported` lets pass.
        policy: what a bad step means.
        keeps_batch: whether the batch of a bad step is kept for a black box.
        first_step: the batch number to go on from.
        schedule: chooses the executions that are X-rays.
        watcher: is told what happens.
    """

    def __init__(
        self,
        model: Any,
        policy: Policy,
        keeps_batch: bool,
        first_step: int,
        schedule: Schedule,
        watcher: Watcher,
    ) -> None:
        self.model = model
        self.original = model.train_function
        self._watcher = watcher
        self.failed, self.orphaned = watcher.failed, watcher.orphaned
        self._schedule = schedule
        self._planned_steps = 0
        self._executes = executes(model)
        self._readout = Readout(first_step, self._executes, policy)
        ring = self._readout.ring
        self._step = WatchedStep(model, ring, self._executes, self._opened)
        if keeps_batch:
            self._step.box = Box(model.jit_compile and not model.run_eagerly)
        self._everyday: TrainFunction | None = None
        self._xray: TrainFunction | None = None
        self._late = 0
        self._next = first_step
        self._begun = False
        self._another_fit = True  # maybe with data of another kind
        self._resumed_from = ""
        self._unsynced = 0
        self._synced = 0.0
        self.tap = Tap(self.original, self)
        self._step.traced = self.tap.compiles
        self.loop = Loop(self._step, self._stepped)

    def install(self, batch_size: int | None) -> None:
        """Puts the tap into the model.

        Args:
            batch_size: examples of a whole batch, `None` if that is not known.
        """
        if self._step.box is not None:
            self._step.box.rows = batch_size
        self._release_kept()
        if self._step.rollback is not None:
            self._step.rollback.begin()
        self._readout.ring.release_latch(watched=True)
        self._readout.begin()
        self._another_fit = True
        self.tap.installed = time.monotonic_ns()
        self.model.train_function = self.tap

    def plan(self, steps: int) -> None:
        """Takes the number of training batches to come; 0 = unknown."""
        self._planned_steps = steps and self.count + steps
        if self._readout.ring.capacity:
            self._tell_opened()

    def fits(self, model: Any) -> bool:
        """Whether Keras would use its own train function again, as it is."""
        return self.model is model and model.train_function is self.original

    def uninstall(self) -> None:
        """Puts the original function object back, if ours still stands."""
        self._readout.release(held=False)
        self._readout.ring.release_latch(watched=False)
        if self.model.train_function is self.tap:
            self.model.train_function = self.original

    @property
    def count(self) -> int:
        """Training batches seen so far. Waits for the device."""
        return self._readout.ring.progress().seen

    def drain(self) -> Block | None:
        """Returns the readings since the last call, see `Readout.drain`."""
        ring = self._readout.ring
        if self.tap.always and ring.capacity and ring.progress().stopped:
            self.model.stop_training = True  # a `tf.function` tells nobody
        return self._readout.drain()

    def execute(self, iterator: Any) -> Any:
        """Runs the next execution, an X-ray where one is due.

        Looking at the device's counters waits for a GPU, and costs a tenth of a
        fast step on a CPU; so that is done 20 times a second, and when a bad
        step rings. One that cannot has at least set the latch meanwhile; a CPU
        is looked at each time then.
        """
        if not self._begun:
            self._begin(iterator)
        if self._step.rollback is not None:
            self._step.rollback.executes(self._next)
        began = time.perf_counter()
        album = self._readout.album
        if album is not None and self._schedule.due(self._next, self._until):
            return self._take_xray(iterator)
        fresh = self._everyday is None
        if self._everyday is None:
            self._everyday = TrainFunction(self.model, self._step)
        with self._hears(fresh or self._another_fit):
            logs = self._everyday(iterator)
        self._another_fit = False
        now = time.time()
        ring, clock = self._readout.ring, self._readout.clock
        seconds = clock.returned(began, ring.on_cpu)
        if not fresh:
            self._schedule.executed(self._next, seconds)
        if len(self._step.late) > self._late:
            self._late = len(self._step.late)
            self._everyday = None
        self._unsynced += self._executes
        self._next += self._executes
        if (
            ring.bell.rung
            or (ring.on_cpu and not self._step.rings)
            or now - self._synced >= _SYNC_SECONDS
            or 4 * self._unsynced >= ring.capacity
        ):
            self.look(now)
        elif ring.on_cpu:
            clock.mark(self._next, now)
        return logs

    def _until(self) -> int:
        """See `until_update`; asked when an X-ray is due."""
        return until_update(self.model.optimizer, self._executes)

    def _stepped(self, seconds: float) -> None:
        """A step of the user's own loop has ended."""
        self._readout.clock.executed(seconds)
        self._watcher.stepped()
        self.look(time.time())

    def _hears(self, traced: bool) -> AbstractContextManager[None]:
        """Lets the step's waiting be measured; once where it is compiled."""
        if traced or self.model.run_eagerly:
            return self._step.wait.listening()
        return nullcontext()

    def _begin(self, iterator: Any) -> None:
        """Before the very first step: does it go on where another run ended?

        Keras' `BackupAndRestore` restores in its own `on_train_begin`, after
        ours maybe.
        """
        self._begun = True
        build_ahead(self.model, iterator, self._step.say)
        optimizer = inner(self.model.optimizer)
        count = int(optimizer.iterations.numpy()) if optimizer else 0
        if self._next == 0 and count > 0:
            step, self._resumed_from = self._watcher.resumed(count)
            self._next = step
            self._planned_steps += step if self._planned_steps else 0
            self._readout.start(step)

    def _take_xray(self, iterator: Any) -> Any:
        """Runs an execution whose first step is an X-ray."""
        self.look(time.time())  # a device that lags would blur its time
        step, first = self._next, self._xray is None
        if self._xray is None:
            self._xray = TrainFunction(self.model, self._step.xray)
        self._step.arm()
        with self._readout.xray(step) as note:
            began = time.perf_counter()
            with self._hears(first):
                logs = self._xray(iterator)
            ring, clock = self._readout.ring, self._readout.clock
            ring.progress()  # waits for the device
            seconds = clock.returned(began, ring.on_cpu)
            self._schedule.taken(step, None if first else seconds)
            trace = seconds - self._schedule.everyday if first else math.nan
            note += [self._schedule.share, trace]
        self.look(time.time())
        return logs

    def look(self, now: float) -> None:
        """Looks at the device's counters; `now` in Unix seconds."""
        readout = self._readout
        if not readout.ring.capacity:
            return
        self._synced, self._unsynced = now, 0
        readout.ring.bell.rung = False
        at = readout.ring.progress()
        self._next = at.seen
        readout.clock.mark(at.seen, now)
        back, new = self._step.rollback, readout.undecided(at.latched)
        if back is not None and new:
            readout.decide(at.latched, back.distance(at.latched))
        if readout.crowded(at.seen):
            self._watcher.half_full()
        if at.kept >= 0:
            self._watcher.kept(at.kept)
            at = self._release_kept()
        if at.latched >= 0:
            done = back is not None and new and back.put_back(at.seen)
            if self._watcher.latched(at.latched, done):
                self._go_on()
        elif back is not None:
            back.executed(at.seen, readout.clock.busy, readout.losses)

    def _go_on(self) -> None:
        """The model was put back; training goes on with smaller rates."""
        if self._step.rollback is not None:
            self._step.rollback.rates.lower()
        self._release_kept()
        self._readout.ring.release_latch(watched=True)

    def evidence(self, step: int | None) -> Evidence:
        """Returns what a black box holds, see `evidence`."""
        return evidence(self.model, self._readout, self._step.box, step)

    def _release_kept(self) -> Progress:
        if self._step.box is not None:
            self._step.box.clear()
        return self._readout.release(self._watcher.wants_box())

    def pause(self, now: float) -> None:
        """An epoch has ended: looks, and what follows is no step's time."""
        self.look(now)
        self._readout.clock.pause()

    def _opened(
        self, slots: tuple[Slot, ...], fields: Mapping[str, Any]
    ) -> None:
        """The first trace has found out what there is to measure."""
        album = None
        if self._schedule.every_steps and self._step.takes_xrays():
            album = Album(*planned(self.model, slots, fields))
            self._step.album = album
        self._readout.open(slots, album)
        self._tell_opened()

    def _tell_opened(self) -> None:
        with tf.init_scope():  # the weights have values outside of the trace
            planned, before = self._planned_steps, self._resumed_from
            facts = anatomy(self.model, planned, before, self._step.cuts)
            facts = replace(facts, **self._readout.ring.policy.limits)
        self._watcher.opened(facts, self._readout.schema)
