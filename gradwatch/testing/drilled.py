"""A drill's training, in a process of its own: `python -m` this module.

It trains the demo's model on the demo's data. What the parent has to know comes
as JSON, one line each, on its standard output: the run directory at the begin
of training, and the fault when it comes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import keras
import typer

from gradwatch.callback import GradWatch
from gradwatch.testing import faults
from gradwatch.testing.digits import digits, digits_model
from gradwatch.testing.drills import DRILLS, Drill
from gradwatch.testing.faults import Fault

__all__ = ["FAULTS", "train"]

_BATCH = 64
_AFTER = 480  # steps, at least, so that rules have something to look at
_ENDLESS = 100_000  # epochs; time ends the training

FAULTS: Mapping[str, Callable[[int, float], Fault | None]] = {
    "healthy": lambda at, seconds: None,
    "nan_batch": lambda at, seconds: faults.NanBatch(at),
    "inf_weight": lambda at, seconds: faults.InfWeight(at),
    "float16_overflow": lambda at, seconds: faults.Float16Overflow(at),
    "exploding_rate": lambda at, seconds: faults.LearningRate(at, 1e5),
    "tiny_rate": lambda at, seconds: faults.LearningRate(at, 1e-7),
    "stalled_loss": lambda at, seconds: faults.LearningRate(at, 0.0),
    "zeroed_layer": lambda at, seconds: faults.ZeroedLayer(at, "hidden_1"),
    "hang": lambda at, seconds: faults.Hang(at, seconds),
    "slow_steps": lambda at, seconds: faults.SlowSteps(at, factor=10.0),
    "crash": lambda at, seconds: faults.Crash(at),
    "kill": lambda at, seconds: faults.Kill(at),
}
"""Name of a drill -> its fault, from step and seconds."""


class _Tells(logging.Handler):
    """Prints each fault that is logged, before it happens."""

    def emit(self, record: logging.LogRecord) -> None:
        """Logging: here is a record."""
        fault = getattr(record, "fault", None)
        if fault is not None:
            step, meaning = fault.at_step, fault.meaning
            _say({"time": fault.time, "step": step, "meaning": meaning})


class _Lasts(keras.callbacks.Callback):
    """Lets a run go on for a while, for the sake of an alert.

    Steps become slower when one of the findings is there; those that are left
    take `seconds` together. In a training without an end, the end comes
    `seconds` after the fault.
    """

    def __init__(
        self, drill: Drill, watch: GradWatch, fault: Any, seconds: float
    ) -> None:
        super().__init__()
        self._drill, self._watch, self._fault = drill, watch, fault
        self._seconds = seconds
        self._pause = 0.0
        self._begun = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras: the fit begins."""
        _say({"run": str(self._watch.path)})

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Keras: an execution begins."""
        time.sleep(self._pause)
        self._begun += 1
        if self._drill.state == "slow":
            over = time.time() - self._fault.time > self._seconds
            self.model.stop_training = bool(self._fault.time and over)
        elif self._seconds and self._drill.rules and not self._pause:
            said = {finding.rule for finding in self._watch.findings}
            if said.intersection(self._drill.rules):
                planned = self.params["epochs"] * self.params["steps"]
                left = max(1, planned - self._begun)
                self._pause = self._seconds / left


def train(
    drill: Drill, logdir: Path, at_step: int, seconds: float
) -> GradWatch:
    """Trains the demo's model, with the fault of a drill; returns the watch."""
    x, y = digits()
    if drill.name == "float16_overflow":
        keras.config.set_dtype_policy("mixed_float16")
    fault = FAULTS[drill.name](at_step, seconds)
    watch = GradWatch(
        logdir,
        name=f"drill-{drill.name}",
        labels={"drill": drill.name},
        xray_every_steps=0 if drill.name == "stalled_loss" else 200,
        budget=1.0,  # X-rays must not depend on how fast the machine is
    )
    epochs = -(-(at_step + _AFTER) * _BATCH // len(x))
    digits_model("categorical_crossentropy").fit(
        x,
        y,
        batch_size=_BATCH,
        epochs=_ENDLESS if drill.state == "slow" else epochs,
        verbose=0,
        callbacks=[
            watch,
            _Lasts(drill, watch, fault, seconds),
            *([fault] if fault else []),
        ],
    )
    return watch


def _say(what: Mapping[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main(
    name: str,
    logdir: Annotated[Path, typer.Option()],
    at_step: Annotated[int, typer.Option()],
    seconds: Annotated[float, typer.Option()],
) -> None:
    """Trains one drill."""
    logging.getLogger("gradwatch.testing").addHandler(_Tells())
    train(DRILLS[name], logdir, at_step, seconds)


if __name__ == "__main__":
    typer.run(main)
