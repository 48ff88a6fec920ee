"""`GradWatch`: the Keras callback.

It does not override `on_train_batch_end`: that would make Keras turn every log
value into a host float at every batch (`callbacks/callback_list.py`, Keras
3.15.1).
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

try:
    import keras
    import tensorflow  # noqa: F401  (missing, it is to be named here)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"`GradWatch` needs {error.name}, which is not installed. Install "
        "Keras and TensorFlow, for example with: "
        "pip install 'gradwatch[tensorflow]'",
        name=error.name,
    ) from error

import numpy as np

from gradwatch import arguments
from gradwatch.capture import Tap, refuse_unsupported
from gradwatch.errors import GradWatchError, expected
from gradwatch.identity import new_run
from gradwatch.interfaces import Rule, Sink
from gradwatch.records import Epoch, Finding, Run
from gradwatch.rules import default_rules
from gradwatch.runstate import RunState
from gradwatch.sinks.findings import FindingsSink
from gradwatch.sinks.log import LogSink
from gradwatch.sinks.state import StateSink
from gradwatch.sinks.tensorboard import TensorBoardSink
from gradwatch.summary import summary
from gradwatch.watch import Watch

__all__ = ["GradWatch"]

_log = logging.getLogger("gradwatch")
_Hook = TypeVar("_Hook", bound=Callable[..., None])


def _harmless(hook: _Hook) -> _Hook:
    """A fault of gradwatch in this hook is logged, and that is all."""

    @functools.wraps(hook)
    def safe(*args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except GradWatchError:
            raise
        except Exception:
            _log.exception("gradwatch failed; training goes on.")

    return safe  # type: ignore[return-value]


class GradWatch(keras.callbacks.Callback):
    """Watches a `fit`: losses, gradient norms, NaN by name.

    One object is one run; further `fit` calls with it continue the run.

    Args:
        logdir: folder in which the run directory `<logdir>/<run id>` is made.
        name: what to call the run, `[A-Za-z0-9._-]`, at most 40 characters;
            default: the model's name.
        labels: the user's own key-value pairs, kept with the run.
        every_steps: cadence, in steps, of the readings that are recorded for
            TensorBoard; guard and rules see every step.
        on_nonfinite: what happens at a step whose loss, gradient or state is
            not finite. `"stop"`: its update is dropped and training ends with
            the weights before it; `"raise"`: the same, and `fit` raises
            `NonFiniteError`; `"record"`: it is only told.
        rules: judge the run; default: `default_rules()`.
        sinks: further sinks, beside TensorBoard, `state.json`,
            `findings.jsonl` and the log.
        metrics_port: also serve Prometheus metrics of this run on 127.0.0.1
            at this port, until 30 s after `fit`; 0 = a free port; `None` =
            not at all.

    Raises:
        GradWatchError: an argument cannot be used; says what was expected.
    """

    def __init__(
        self,
        logdir: str | Path = "runs",
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        every_steps: int = 1,
        on_nonfinite: arguments.OnNonfinite = "stop",
        rules: Sequence[Rule] | None = None,
        sinks: Sequence[Sink] = (),
        metrics_port: int | None = None,
    ) -> None:
        super().__init__()
        self._logdir = arguments.logdir(logdir)
        self._name = arguments.name(name)
        self._labels = arguments.labels(labels)
        self._every_steps = arguments.every_steps(every_steps)
        self._on_nonfinite = arguments.on_nonfinite(on_nonfinite)
        rules = default_rules() if rules is None else rules
        self._rules = arguments.parts("rules", rules, ("begin", "check"))
        members = ("open", "write", "close")
        self._own_sinks = arguments.parts("sinks", sinks, members)
        self._port = arguments.port(metrics_port)
        self._watch: Watch | None = None
        self._set = 0

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
        return summary(
            self._watch.state.snapshot(), self.findings, self._watch.path
        )

    def set_model(self, model: Any) -> None:
        """Keras: the callbacks of a fit, evaluate or predict are made."""
        super().set_model(model)
        self._set = time.monotonic_ns()

    @_harmless
    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a fit begins. Installs the watched step."""
        self._clear_tap()
        refuse_unsupported(self.model)
        watch = self._watch or self._new_watch()
        try:
            watch.begin(self.model)
        except BaseException as error:
            watch.failed(error)
            raise
        self._watch = watch

    @_harmless
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

    @_harmless
    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an epoch and its validation are over."""
        if self._watch is None or not self._watch.active:
            return
        step = self._watch.look()
        values = dict(_scalars(logs or {}))
        validation = {
            k.removeprefix("val_"): v
            for k, v in values.items()
            if k.startswith("val_")
        }
        metrics = {k: v for k, v in values.items() if not k.startswith("val_")}
        self._watch.pump.put(
            Epoch(epoch, step, time.time(), metrics, validation)
        )

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a validation begins."""
        if self._watch is not None and self._watch.active:
            self._watch.pump.phase("evaluating")

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a validation is over."""
        if self._watch is not None and self._watch.active:
            self._watch.pump.phase("running")

    @_harmless
    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: the fit is over. Puts the model as it was."""
        if self._watch is not None:
            self._watch.finished()

    def _clear_tap(self) -> None:
        """Heals what a dead fit left in the model; refuses two watchers."""
        found = self.model.train_function
        if not isinstance(found, Tap):
            return
        if found.installed <= self._set:
            found.owner.orphaned()
            return
        error = GradWatchError(
            expected(
                "callbacks",
                "one GradWatch in a fit",
                "two",
                "One of them is enough: give it all rules and sinks.",
            )
        )
        found.owner.failed(error)
        raise error

    def _new_watch(self) -> Watch:
        run = new_run(self._name or self.model.name, self._labels)
        path = self._logdir / run.id
        return Watch(
            run,
            path,
            self._on_nonfinite,
            self._rules,
            lambda state: [*self._disk_sinks(path, state), *self._own_sinks],
            self._port,
        )

    def _disk_sinks(self, path: Path, state: RunState) -> list[Sink]:
        log = LogSink(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            _log.warning(
                "Training goes on, but nothing is recorded: the run directory "
                "%s cannot be made (%s).",
                path,
                error.strerror,
            )
            return [log]
        return [
            TensorBoardSink(path, every_steps=self._every_steps),
            StateSink(path, state),
            FindingsSink(path),
            log,
        ]


def _scalars(logs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields numbers by name; a metric with several has `/0`, `/1` behind."""
    for name, value in logs.items():
        numbers = np.asarray(value, np.float64)
        if numbers.ndim == 0:
            yield name, float(numbers)
        else:
            for i, number in enumerate(numbers.ravel()):
                yield f"{name}/{i}", float(number)
