"""Real fits for `gradwatch compare`: one program, and what may be changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from gradwatch import GradWatch, component
from tests.models import BATCH, data

STEPS = 16  # of an epoch


def loss_of(weight: float) -> Callable[[Any, Any], Any]:
    """Returns cross-entropy and a penalty, the second one weighted."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        entropy = keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )
        size = keras.ops.mean(y_pred**2, axis=-1)
        fit = component("fit", entropy)
        return fit + weight * component("size", size, weight)

    return loss


def train(
    logdir: Path,
    name: str,
    *callbacks: Any,
    seed: int = 3,
    units: int = 16,
    rate: float = 0.05,
    momentum: float = 0.9,
    weight: float = 0.1,
    change: int = -1,
    by: float | None = None,
    epochs: int = 1,
    xray: int = 0,
    every: int = 1,
    drop: float = 0.0,
    policy: str | None = None,
    activation: Any = "relu",
    **options: Any,
) -> Path:
    """Trains a small classifier; returns its run directory.

    Layers have the names that Keras gives them, counted on.

    Args:
        logdir: where to record.
        name: of the run.
        callbacks: more of them, after the GradWatch.
        seed: of everything.
        units: of the hidden layer.
        rate: learning rate.
        momentum: of SGD.
        weight: of a part of the loss.
        change: the batch of which one example is another one.
        by: what the example is made of, otherwise its neighbour.
        epochs: of 16 steps each.
        xray: `xray_every_steps`.
        every: `every_steps`.
        drop: rate of a Dropout.
        activation: of the hidden layer.
        policy: what layers compute in.
        options: of `compile`.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(units, activation=activation, dtype=policy),
            keras.layers.Dense(16, activation="tanh", dtype=policy),
            *([keras.layers.Dropout(drop)] if drop else []),
            keras.layers.Dense(3),
        ]
    )
    optimizer = keras.optimizers.SGD(rate, momentum=momentum)
    model.compile(optimizer, loss_of(weight), **options)
    x, y = data(STEPS * BATCH)
    if change >= 0:
        x = x.copy()
        x[change * BATCH] = x[change * BATCH + 1] if by is None else by
    watch = GradWatch(
        logdir, name=name, xray_every_steps=xray, every_steps=every, budget=1.0
    )
    model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[watch, *callbacks],
    )
    assert watch.path is not None
    return watch.path
