"""A watched run's life: begin, what happens meanwhile, end.

Connects capture, pump, sinks and the in-process endpoint of one run, over all
its fits. Everything here runs on the training thread.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gradwatch.capture import Capture, FitFrame, Schedule
from gradwatch.errors import NonFiniteError
from gradwatch.incidents import Incidents
from gradwatch.interfaces import Rule, Sink
from gradwatch.metrics import Endpoint
from gradwatch.outlet import Outlet
from gradwatch.policy import Policy
from gradwatch.pump import Pump
from gradwatch.records import Anatomy, Phase, Run, Schema, of_step
from gradwatch.resume import Predecessor
from gradwatch.runstate import RunState
from gradwatch.serving import Serving

__all__ = ["Watch"]

_CLOSING_SECONDS = 5.0
_FINDING_SECONDS = 5.0


class Watch:
    """One run from its first fit on.

    Args:
        run: its identity.
        path: its directory.
        policy: what a bad step means.
        incidents: keeps and explains bad steps.
        rules: judge it.
        sinks: made for a RunState; take its records.
        metrics_port: see `GradWatch`.
        schedule: chooses the executions that are X-rays.
        predecessor: the run that this one may go on from.
    """

    def __init__(
        self,
        run: Run,
        path: Path,
        policy: Policy,
        incidents: Incidents,
        rules: Sequence[Rule],
        sinks: Callable[[RunState], Sequence[Sink]],
        metrics_port: int | None,
        schedule: Schedule,
        predecessor: Predecessor | None,
    ) -> None:
        self.run = run
        self.path = path
        self.state = RunState(run)
        self._serving = Serving(metrics_port, self.state.snapshot)
        self.active = False
        self._policy = policy
        self._rollbacks = 0
        self._incidents = incidents
        self._schedule = schedule
        self._predecessor = predecessor
        self._executions = 0
        self._capture: Capture | None = None
        self._latched, self._planned = -1, False
        self._fit: FitFrame | None = None
        self._lock = threading.Lock()
        self.pump = Pump(
            run,
            rules,
            self.state,
            [Outlet(sink) for sink in sinks(self.state)],
            lambda: self._capture.drain() if self._capture else None,
            lambda: self._executions,
            alive=self._fit_runs,
            left=self.orphaned,
            step=self._step,
        )
        atexit.register(_process_ends, weakref.ref(self))

    @property
    def endpoint(self) -> Endpoint | None:
        """What serves this run's metrics, if anything does."""
        return self._serving.endpoint

    def begin(self, model: Any) -> None:
        """Begins or continues the run with a fit of `model`.

        Args:
            model: a compiled `keras.Model` that can be watched.
        """
        began = time.perf_counter()
        kept = self._capture
        if kept is None or not kept.fits(model):
            first_step = kept.count if kept else 0
            kept = Capture(
                model,
                self._policy,
                self._incidents.keeps_batch,
                first_step,
                self._schedule,
                self,
            )
        self._capture = kept
        self._latched, self._planned = -1, False
        self._fit = FitFrame()
        self.active = True
        self._serving.open()
        self.pump.start()
        kept.install(self._fit.batch_size)
        self.pump.spend("begin", time.perf_counter() - began)

    def epoch_begins(self, steps: int) -> None:
        """Takes the number of batches planned from here; 0 = unknown."""
        if self._capture is not None and not self._planned:
            self._planned = True
            self._capture.plan(steps)

    @contextlib.contextmanager
    def looping(self) -> Iterator[None]:
        """A loop of the user's runs meanwhile, on this thread."""
        kept = self._capture
        if kept is None:
            return
        kept.tap.always = True
        self._executions += 1  # so that a block without a reading is noticed
        try:
            with kept.loop.watching():
                yield
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            kept.tap.always = False
        self.finished()

    def step(self) -> AbstractContextManager[None]:
        """What happens meanwhile is one step of the user's loop."""
        if self._capture is None or not self.active:
            return contextlib.nullcontext()
        return self._capture.loop.step()

    def stepped(self) -> None:
        """See `Watcher`."""
        self._executions += 1

    def execution_begins(self) -> None:
        """Keras is about to call the train function."""
        self._executions += 1
        if self._capture is not None:
            self._capture.tap.arm()

    def look(self) -> int:
        """Acts on a latch now; returns the batches finished so far."""
        if self._capture is None:
            return 0
        self._capture.pause(time.time())
        return self._capture.count

    def opened(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Watcher`."""
        self.pump.opened(anatomy, schema)

    def resumed(self, count: int) -> tuple[int, str]:
        """See `Watcher`."""
        known = self._predecessor
        step = known.step(count) if known else None
        return (0, "") if known is None or step is None else (step, known.run)

    def half_full(self) -> None:
        """See `Watcher`."""
        self.pump.drain()

    def kept(self, step: int) -> None:
        """Writes the black box of an incident."""
        if self._capture is not None and self._incidents.wanted:
            self.pump.flush(_FINDING_SECONDS)
            finding = of_step(self.pump.findings, step)
            self._incidents.keep(self._capture, step, finding)

    def wants_box(self) -> bool:
        """See `Watcher`."""
        return self._incidents.wanted

    def snapshot(self) -> Path | None:
        """Writes the model as it is now; see `GradWatch.snapshot`."""
        if self._capture is None:
            return None
        return self._incidents.snapshot(self._capture)

    def latched(self, step: int, back: bool) -> bool:
        """Ends the fit, the way that the user chose, or lets it go on."""
        if self._latched == step:
            return False
        if back and self._rollbacks < self._policy.max_rollbacks:
            self._rollbacks += 1
            return True
        self._latched, self._rollbacks = step, 0
        if self._policy.name == "raise":
            self._explain()
            self.pump.flush(_FINDING_SECONDS)
            error = NonFiniteError(step, of_step(self.pump.findings, step))
            self.failed(error)
            raise error
        if self._capture is not None:
            self._capture.model.stop_training = True
        return False

    def failed(self, error: BaseException) -> None:
        """Ends the run while `error` leaves `fit`, which ends no callback."""
        if isinstance(error, NonFiniteError):
            self.end("failed", "nonfinite")
        elif isinstance(error, KeyboardInterrupt):
            self.end("interrupted", "KeyboardInterrupt")
        else:
            self.end("failed", type(error).__name__)

    def orphaned(self) -> None:
        """Ends the run if its fit has died without a word."""
        if not self._fit_runs():
            self.end("failed", "fit ended without a word")

    def finished(self) -> None:
        """Ends the run at the end of `fit`."""
        self.look()
        try:
            self._explain()
        finally:
            if self._latched >= 0:
                self.end("failed", "nonfinite")
            else:
                self.end("finished", "")

    def end(self, phase: Phase, reason: str) -> None:
        """Puts the model right and closes everything; twice is once."""
        with self._lock:
            if self._capture is not None:
                self._capture.uninstall()
            if not self.active:
                return
            self.active = False
            self._fit = None
        self.pump.stop(phase, reason, _CLOSING_SECONDS)
        self._serving.close_later()

    def _explain(self) -> None:
        """Has the bad steps of this fit explained, in time."""
        if self._capture is not None and self.active:
            for found in self._incidents.autopsies(self._capture.model):
                self.pump.put(found)

    def _step(self) -> tuple[float, bool]:
        """See `Tap`."""
        return self._capture.tap.step if self._capture else (0.0, False)

    def _fit_runs(self) -> bool:
        """Whether the fit that began may still be running."""
        return self._fit is not None and self._fit.runs()

    def _interrupted(self) -> None:
        self.orphaned()
        self.end("interrupted", "the process ended")
        # Also where the pump itself has ended the run, just before.
        self.pump.wait(_CLOSING_SECONDS)


def _process_ends(watch: weakref.ref[Watch]) -> None:
    """At exit: says how the run ended, if nobody else has."""
    alive = watch()
    if alive is not None:
        alive._interrupted()
