"""A watched run's life: begin, what happens meanwhile, end.

Connects capture, pump, sinks and the in-process endpoint of one run, over all
its fits. Everything here runs on the training thread.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradwatch.arguments import OnNonfinite
from gradwatch.capture import Capture
from gradwatch.errors import NonFiniteError
from gradwatch.interfaces import Rule, Sink
from gradwatch.metrics import Endpoint, RunCollector, serve_metrics
from gradwatch.outlet import Outlet
from gradwatch.pump import Pump
from gradwatch.records import Anatomy, Finding, Phase, Run, Schema
from gradwatch.runstate import RunState

__all__ = ["Watch"]

_log = logging.getLogger("gradwatch")

_CLOSING_SECONDS = 5.0
_FINDING_SECONDS = 5.0
_SERVED_AFTER_SECONDS = 30.0


class Watch:
    """One run from its first fit on.

    Args:
        run: its identity.
        path: its directory.
        on_nonfinite: what a bad step means.
        rules: judge it.
        sinks: made for a RunState; take its records.
        metrics_port: see `GradWatch`.
    """

    def __init__(
        self,
        run: Run,
        path: Path,
        on_nonfinite: OnNonfinite,
        rules: Sequence[Rule],
        sinks: Callable[[RunState], Sequence[Sink]],
        metrics_port: int | None,
    ) -> None:
        self.run = run
        self.path = path
        self.state = RunState(run)
        self.endpoint: Endpoint | None = None
        self.active = False
        self._on_nonfinite = on_nonfinite
        self._port = metrics_port
        self._executions = 0
        self._capture: Capture | None = None
        self._latched = -1
        self._closing: threading.Timer | None = None
        self.pump = Pump(
            run,
            rules,
            self.state,
            [Outlet(sink) for sink in sinks(self.state)],
            lambda: self._capture.drain() if self._capture else None,
            lambda: self._executions,
        )

    def begin(self, model: Any, planned_steps: int) -> None:
        """Begins or continues the run with a fit of `model`.

        Args:
            model: a compiled `keras.Model`.
            planned_steps: training batches planned in this fit; 0 = unknown.

        Raises:
            GradWatchError: the model cannot be watched; nothing has begun.
        """
        kept = self._capture
        if kept is None or not kept.fits(model):
            first_step = kept.count if kept else 0
            guarded = self._on_nonfinite != "record"
            kept = Capture(model, guarded, first_step, self)
        self._capture = kept
        self._latched = -1
        self._serve()
        self.pump.start()
        kept.install(planned_steps)
        self.active = True
        atexit.register(self._interrupted)

    def execution_begins(self) -> None:
        """Keras is about to call the train function."""
        self._executions += 1
        if self._capture is not None:
            self._capture.tap.arm()

    @property
    def step(self) -> int:
        """Training batches finished so far."""
        return self._capture.count if self._capture else 0

    def opened(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Watcher`."""
        self.pump.opened(anatomy, schema)

    def half_full(self) -> None:
        """See `Watcher`."""
        self.pump.drain()

    def latched(self, step: int) -> None:
        """Ends the fit, the way that the user chose."""
        if self._latched == step:
            return
        self._latched = step
        if self._on_nonfinite == "raise":
            self.pump.flush(_FINDING_SECONDS)
            raise NonFiniteError(step, self._finding(step))
        if self._capture is not None:
            self._capture.model.stop_training = True

    def failed(self, error: BaseException) -> None:
        """Ends the run while `error` leaves `fit`, which ends no callback."""
        if isinstance(error, NonFiniteError):
            self.end("failed", "nonfinite")
        elif isinstance(error, KeyboardInterrupt):
            self.end("interrupted", "KeyboardInterrupt")
        else:
            self.end("failed", type(error).__name__)

    def orphaned(self) -> None:
        """Ends the run: its fit died, somebody trains the model unwatched."""
        self.end("failed", "fit ended without a word")

    def finished(self) -> None:
        """Ends the run at the end of `fit`."""
        if self._latched >= 0:
            self.end("failed", "nonfinite")
        else:
            self.end("finished", "")

    def end(self, phase: Phase, reason: str) -> None:
        """Puts the model right and closes everything; twice is once."""
        if self._capture is not None:
            self._capture.uninstall()
        if not self.active:
            return
        self.active = False
        atexit.unregister(self._interrupted)
        self.pump.stop(phase, reason, _CLOSING_SECONDS)
        if self.endpoint is not None:
            self._closing = threading.Timer(
                _SERVED_AFTER_SECONDS, self._stop_serving
            )
            self._closing.daemon = True
            self._closing.start()

    def _interrupted(self) -> None:
        self.end("interrupted", "the process ended")

    def _finding(self, step: int) -> Finding | None:
        return next(
            (
                f
                for f in self.pump.findings
                if f.severity == "critical" and f.first_step == step
            ),
            None,
        )

    def _serve(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        if self._port is None or self.endpoint is not None:
            return
        collector = RunCollector(lambda: [self.state.snapshot()])
        try:
            self.endpoint = serve_metrics(collector, self._port)
        except OSError as error:
            _log.warning(
                "Port %d cannot be served, training goes on without "
                "metrics in this process: %s",
                self._port,
                error,
            )
            return
        if self._port == 0:  # otherwise the user knows it
            sys.stderr.write(f"gradwatch serves {self.endpoint.url}\n")

    def _stop_serving(self) -> None:
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None
