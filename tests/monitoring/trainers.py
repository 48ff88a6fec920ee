"""Real fits, paced, to which something happens when a test wants it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

from gradwatch import GradWatch, component

_PACE = 0.05  # seconds that a batch takes to come


class Trainer(threading.Thread):
    """A fit in a thread of its own.

    Args:
        logdir: where its run directory is made.
        name: of the run.
        model: compiled.
        x: inputs.
        y: targets.
        steps: how many are planned.
        pace: seconds that a batch takes to come; the last fifth takes 0.07.
        xrays: whether there are any.
        epochs: of so many steps; each is validated if there are several.

    Attributes:
        nan: set it, and the next batches hold a NaN.
        hang: set it, and the next batch does not come until it is cleared.
        over: set it, and the fit ends as if it had been stopped early.
    """

    def __init__(
        self,
        logdir: Path,
        name: str,
        model: Any,
        x: Any,
        y: Any,
        steps: int,
        pace: float = _PACE,
        xrays: bool = False,
        epochs: int = 1,
    ) -> None:
        super().__init__(name=f"trainer-{name}", daemon=True)
        self.nan, self.hang = threading.Event(), threading.Event()
        self.over = threading.Event()
        every = 200 if xrays else 0
        self.watch = GradWatch(logdir, name=name, xray_every_steps=every)
        self._model, self._x, self._y = model, x, y
        self._steps, self._pace, self._epochs = steps, pace, epochs

    @property
    def run_id(self) -> str:
        """The run's id; waits until it has one."""
        end = time.monotonic() + 60
        while self.watch.run is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        return self.watch.run.id

    def run(self) -> None:
        """Trains."""
        ends = keras.callbacks.LambdaCallback(on_train_batch_end=self._end)
        self._model.fit(
            self._batches(),
            steps_per_epoch=self._steps,
            epochs=self._epochs,
            validation_data=(self._x, self._y) if self._epochs > 1 else None,
            shuffle=False,
            verbose=0,
            callbacks=[self.watch, ends],
        )

    def stop(self) -> None:
        """Ends the fit, whatever it waits for."""
        self.over.set()
        self.hang.clear()
        self.join(60)

    def _end(self, batch: int, logs: Any) -> None:
        if self.over.is_set():
            self._model.stop_training = True

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        random = np.random.default_rng(0)
        for step in itertools.count():
            late = step > 0.8 * self._steps * self._epochs
            time.sleep(0.07 if late else self._pace)
            while self.hang.is_set():
                time.sleep(0.05)
            rows = random.integers(0, len(self._x), 32)
            x = self._x[rows]
            if self.nan.is_set():
                x[3, 3] = np.nan
            yield x, self._y[rows]


def learner(logdir: Path, name: str, steps: int = 100_000) -> Trainer:
    """Returns a trainer that learns handwritten digits."""
    x, y = load_digits(return_X_y=True)
    scaled = (x / 16).astype(np.float32)
    return Trainer(logdir, name, _classifier("adam"), scaled, y, steps)


def staller(logdir: Path, name: str, steps: int) -> Trainer:
    """Returns a trainer that cannot learn: its inputs are noise."""
    _, y = load_digits(return_X_y=True)
    shape = (len(y), 64)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = _classifier(keras.optimizers.SGD(1.5e-4))
    return Trainer(logdir, name, model, noise, y, steps, 0.02, xrays=True)


def everything(logdir: Path, name: str) -> Trainer:
    """Returns a trainer of which nearly all metrics are measured.

    Its loss has parts, its gradient is clipped, its layers can be silent or at
    a bound; epochs of 50 steps are validated.
    """

    def distance(y_true: Any, y_pred: Any) -> Any:
        fit = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        sharpness = keras.ops.sum(keras.ops.square(y_pred), axis=-1)
        return component("fit", fit) + component("sharpness", sharpness, 0.1)

    x, y = load_digits(return_X_y=True)
    layers = [
        keras.layers.Dense(32, "relu", kernel_regularizer="l2", name="hidden"),
        keras.layers.Dense(32, "tanh", name="bounded"),
        keras.layers.Dense(10, "softmax", name="classes"),
    ]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile(
        keras.optimizers.Adam(clipnorm=1.0), distance, metrics=["accuracy"]
    )
    scaled = (x / 16).astype(np.float32)
    return Trainer(
        *(logdir, name, model, scaled, y),
        steps=50,
        pace=0.02,
        xrays=True,
        epochs=10_000,
    )


def _classifier(optimizer: Any) -> Any:
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model
