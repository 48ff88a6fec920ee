"""`GradWatch`: the Keras callback.

It does not override `on_train_batch_end`: Keras would turn every log value into
a host float at every batch (`callbacks/callback_list.py`, Keras 3.15.1).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from gradwatch import arguments
from gradwatch.errors import GradWatchError, not_installed

try:
    import keras
    import tensorflow  # noqa: F401  (missing, it is to be named here)
except ModuleNotFoundError as error:
    said = not_installed("`GradWatch`", str(error.name), "tensorflow")
    raise ModuleNotFoundError(said, name=error.name) from error

from gradwatch.capture import Schedule, Tap, refuse_unsupported
from gradwatch.epochs import epoch_record
from gradwatch.harmless import harmless
from gradwatch.identity import new_run
from gradwatch.incidents import Incidents
from gradwatch.interfaces import Rule, Sink
from gradwatch.policy import OnNonfinite
from gradwatch.records import Finding, Run
from gradwatch.report import Report
from gradwatch.resume import find_predecessor
from gradwatch.rules import default_rules
from gradwatch.sinks.disk import disk_sinks
from gradwatch.sinks.notify import notify_sinks
from gradwatch.summary import summary
from gradwatch.watch import Watch

__all__ = ["GradWatch"]


class GradWatch(keras.callbacks.Callback):
    """Watches a `fit`: losses, gradient norms, NaN by name.

    One object is one run; further `fit` calls with it continue the run.

    Args:
        logdir: folder in which the run directory `<logdir>/<run id>` is made.
        name: of the run, at most 40 of `[A-Za-z0-9._-]`; default: the model's.
            A first fit whose optimizer was restored goes on counting where the
            last run of this name and `logdir` had the same count.
        labels: the user's own key-value pairs, kept with the run.
        every_steps: cadence, in steps, of the readings that are recorded for
            TensorBoard; guard and rules see every step.
        xray_every_steps: cadence, in steps, of X-rays: steps like any other
            that also measure histograms, activations, updates and what else is
            too dear for every step. Also at the steps 10, 20, 50 and 100. With
            `steps_per_execution` the first step of the next execution. 0: none.
        on_nonfinite: what happens at a step whose loss, gradient or state is
            not finite. `"stop"`: its update is dropped and training ends with
            the weights before it; `"raise"`: the same, and `fit` raises
            `NonFiniteError`; `"skip"`: its update is dropped and training goes
            on; `"rollback"`: the model goes back to its last good snapshot,
            and training on from there, with the next batch and a smaller
            learning rate; `"record"`: it is only told.
        max_skips: with `"skip"`, how many bad steps in a row are skipped; one
            more ends training as `"stop"` does, and so do ten times as many in
            the whole run.
        max_rollbacks: with `"rollback"`, how often; at the next bad step the
            model goes back once more and training ends.
        rollback_factor: with `"rollback"`, what learning rates are multiplied
            by each time, above 0 and at most 1.
        snapshots: with `"rollback"`, where they lie: in `"memory"` or on the
            `"disk"` of `logdir`, in files without a name.
        blackbox: what is written of an incident's first bad step, to run it
            again: `"full"`, `"weights"` (no batch, so no data) or `"off"`.
        autopsy_seconds: how long, after a fit, its bad steps may be replayed to
            name operation and line; 0 = not at all.
        rules: judge the run; default: `default_rules()`.
        sinks: further sinks, beside TensorBoard, files and the log.
        metrics_port: also serve Prometheus metrics of this run on 127.0.0.1
            at this port, until 30 s after `fit`; 0 = a free one; `None` = none.
        notify: Apprise URLs of whom to tell at once of warnings, critical
            findings, autopsies and a failed end (the extra `[notify]`).
        budget: share of the train function's time that X-rays may cost, above
            0 and at most 1; they thin out to keep it.

    Raises:
        GradWatchError: an argument cannot be used; says what was expected.
    """

    _watch: Watch | None = None
    _set = 0

    def __init__(
        self,
        logdir: str | Path = "runs",
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        every_steps: int = 1,
        xray_every_steps: int = 200,
        on_nonfinite: OnNonfinite = "stop",
        max_skips: int = 10,
        max_rollbacks: int = 3,
        rollback_factor: float = 0.5,
        snapshots: arguments.Place = "memory",
        blackbox: arguments.Contents = "full",
        autopsy_seconds: float = 30.0,
        rules: Sequence[Rule] | None = None,
        sinks: Sequence[Sink] = (),
        metrics_port: int | None = None,
        notify: Sequence[str] = (),
        budget: float = 0.02,
    ) -> None:
        super().__init__()
        self._logdir = arguments.logdir(logdir)
        self._name = arguments.name(name)
        self._labels = arguments.labels(labels)
        self._every_steps = arguments.every_steps(every_steps)
        self._xray_every_steps = arguments.xray_every_steps(xray_every_steps)
        self._budget = arguments.budget(budget)
        place = arguments.snapshots(snapshots, self._logdir)
        self._policy = arguments.policy(
            on_nonfinite, max_skips, max_rollbacks, rollback_factor, place
        )
        seconds = arguments.autopsy_seconds(autopsy_seconds)
        self._kept = arguments.blackbox(blackbox), seconds
        rules = default_rules() if rules is None else rules
        self._rules = arguments.rules(rules)
        self._own_sinks = arguments.sinks(sinks)
        self._own_sinks += notify_sinks(arguments.notify(notify))
        self._port = arguments.port(metrics_port)

    @property
    def run(self) -> Run | None:
        """The run's identity, `None` before the first `fit`."""
        return self._watch.run if self._watch else None

    @property
    def path(self) -> Path | None:
        """The run directory, `None` before the first `fit`."""
        return self._watch.path if self._watch else None

    @property
    def state(self) -> dict[str, Any]:
        """The present of the run as plain data, what `state.json` holds."""
        return self._watch.state.snapshot() if self._watch else {}

    @property
    def findings(self) -> list[Finding]:
        """What the rules have found so far, in the order they said it."""
        return list(self._watch.pump.findings) if self._watch else []

    @property
    def metrics_url(self) -> str | None:
        """Where this run's metrics are served, `None` if they are not."""
        endpoint = self._watch.endpoint if self._watch else None
        return endpoint.url if endpoint else None

    def summary(self) -> str:
        """Returns the story of the run so far, a few lines of text."""
        if self._watch is None:
            return "No run yet: pass this callback to `fit`."
        return summary(self.state, self.findings, self._watch.path)

    def report(self) -> Report:
        """Returns the run so far as a report, which a notebook shows."""
        if self._watch is None:
            raise GradWatchError("No run yet: pass this callback to `fit`.")
        return Report(self._watch.path)

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[Self]:
        """Watches a training loop of your own: `with watch.watching(model)`.

        `train_on_batch` and each `apply` of the first optimizer seen are a
        step; `step` bounds it otherwise. Further blocks continue the run. A bad
        step sets `model.stop_training`, which the loop is to look at; nothing
        changes the weights any more from then on.

        Args:
            model: the `keras.Model` whose weights the loop trains.

        Raises:
            GradWatchError: the model cannot be watched; says why.
            NonFiniteError: at a bad step, with `on_nonfinite="raise"`.
        """
        refuse_unsupported(model, self._policy, own_loop=True)
        watch = self._begin(model)
        with watch.looping():
            yield self

    def step(self) -> AbstractContextManager[None]:
        """Bounds a step of your own loop: `with watch.step()`.

        Needed where a step applies several optimizers, or none. Outside of
        `watching` it does nothing.
        """
        if self._watch is None:
            return contextlib.nullcontext()
        return self._watch.step()

    def snapshot(self) -> Path | None:
        """Writes model and optimizer as they are between two steps.

        Call it on the thread that trains. Returns the folder, in the run
        directory, `None` before the first `fit`; `blackbox.load` reads it.

        Raises:
            OSError: it cannot be written, or is there already.
        """
        return self._watch.snapshot() if self._watch else None

    def set_model(self, model: Any) -> None:
        """Keras: the callbacks of a fit, evaluate or predict are made."""
        super().set_model(model)
        self._set = time.monotonic_ns()

    @harmless
    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a fit begins. Installs the watched step."""
        found = self.model.train_function
        if isinstance(found, Tap):  # left by a dead fit, or a second watcher's
            found.clear(self._set)
        refuse_unsupported(self.model, self._policy)
        self._begin(self.model)

    @harmless
    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an epoch begins; the first one tells how many will come."""
        if self._watch is not None and self._watch.active:
            params: Mapping[str, Any] = self.params or {}
            epochs = (params.get("epochs") or 0) - epoch
            self._watch.epoch_begins(epochs * (params.get("steps") or 0))

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: the next execution of the train function is ours."""
        if self._watch is not None and self._watch.active:
            self._watch.execution_begins()

    @harmless
    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an epoch and its validation are over."""
        if self._watch is None or not self._watch.active:
            return
        step = self._watch.look()
        self._watch.pump.put(epoch_record(epoch, step, time.time(), logs or {}))

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a validation begins."""
        if self._watch is not None and self._watch.active:
            self._watch.pump.phase("evaluating")

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a validation is over."""
        if self._watch is not None and self._watch.active:
            self._watch.pump.phase("running")

    @harmless
    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: the fit is over. Puts the model as it was."""
        if self._watch is not None:
            self._watch.finished()

    def _begin(self, model: Any) -> Watch:
        watch = self._watch or self._new_watch(model)
        try:
            watch.begin(model)
        except BaseException as error:
            watch.failed(error)
            raise
        self._watch = watch
        return watch

    def _new_watch(self, model: Any) -> Watch:
        run = new_run(self._name or model.name, self._labels)
        path = self._logdir / run.id
        return Watch(
            run,
            path,
            self._policy,
            Incidents(run, path, self._policy.name, *self._kept),
            self._rules,
            lambda state: (
                disk_sinks(path, state, self._every_steps) + self._own_sinks
            ),
            self._port,
            Schedule(self._xray_every_steps, self._budget),
            find_predecessor(self._logdir, run.name) if self._name else None,
        )
