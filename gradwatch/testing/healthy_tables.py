"""Healthy programs that classify rows of tables."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    cancer,
    circles,
    iris,
    wine,
)
from gradwatch.testing.programs import (
    accuracy,
    dense_net,
    fits,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["HEALTHY"]

_IDS = "sparse_categorical_crossentropy"


def _logistic() -> Program:
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, "sigmoid")])
    judge, loss = accuracy(cancer()), "binary_crossentropy"
    return fits(
        model, cancer(), judge, loss=loss, optimizer=sgd(0.1), epochs=15
    )


def _margin(loss: str) -> Program:
    """A score and a hinge: no gradient from examples that are sure."""
    x, y = cancer()
    model, judge = dense_net(30, [16], 1, last="tanh"), accuracy(cancer(), 0.0)
    return fits(model, Data(x, 2 * y - 1), judge, loss=loss, epochs=12)


def _imbalanced() -> Program:
    """One tumour in twenty is malignant; these weigh more."""
    x, y = cancer()
    kept = np.flatnonzero((y[:, 0] == 1) | (np.arange(len(y)) % 10 == 0))
    data = Data(x[kept], 1 - y[kept])
    model = dense_net(30, [16], 1, last="sigmoid")
    weights = {0: 1.0, 1: 15.0}
    return fits(
        model,
        data,
        accuracy(data),
        loss="binary_crossentropy",
        optimizer=Adam(0.01),
        epochs=25,
        class_weight=weights,
    )


def _flowers(rate: Any, epochs: int, batch_size: int = 16) -> Program:
    model, judge = dense_net(4, [8], 3, last="softmax"), accuracy(iris())
    return fits(
        model,
        iris(),
        judge,
        loss=_IDS,
        optimizer=rate,
        epochs=epochs,
        batch_size=batch_size,
    )


def _normalised_wine() -> Program:
    """Raw inputs behind a layer that normalises them."""
    model = keras.Sequential([keras.Input((13,)), layers.BatchNormalization()])
    model.add(layers.Dense(16, "relu"))
    model.add(layers.Dense(3, "softmax"))
    data = wine(True)
    return fits(
        model, data, accuracy(data), loss=_IDS, optimizer=Adam(0.01), epochs=30
    )


def _circles() -> Program:
    model, judge = dense_net(2, [16, 16], 1), accuracy(circles(), 0.0)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return fits(
        model, circles(), judge, loss=loss, optimizer=Adam(0.01), epochs=15
    )


def _two_heads() -> Program:
    """What kind of wine, and its first measure, from the others."""
    x, y = wine()
    inputs = keras.Input((12,))
    trunk = layers.Dense(24, "relu", name="trunk")(inputs)
    kind = layers.Dense(3, "softmax", name="kind")(trunk)
    alcohol = layers.Dense(1, name="alcohol")(trunk)
    model = keras.Model(inputs, [kind, alcohol])
    first = accuracy(Data(x[:, 1:], y))
    return fits(
        model,
        Data(x[:, 1:], [y, x[:, :1]]),
        lambda m: first(keras.Model(m.inputs, m.outputs[0])),
        loss=[_IDS, "mse"],
        optimizer=Adam(0.01),
        epochs=20,
        compiled={"loss_weights": [1.0, 0.5]},
    )


HEALTHY = (
    Scenario("tumours_logistic", "Logistic regression.", _logistic),
    Scenario(
        "tumours_hinge",
        "A hinge: flat for sure examples.",
        lambda: _margin("hinge"),
    ),
    Scenario(
        "tumours_squared_hinge",
        "A squared hinge.",
        lambda: _margin("squared_hinge"),
    ),
    Scenario(
        "tumours_imbalanced", "One in twenty, and class weights.", _imbalanced
    ),
    Scenario(
        "iris_tiny",
        "Eight units, small batches.",
        lambda: _flowers(sgd(0.05), 25, 8),
    ),
    Scenario(
        "iris_idle",
        "Converged, trained on and on.",
        lambda: _flowers(Adam(0.05), 40),
    ),
    Scenario(
        "iris_momentum",
        "A bold rate with momentum.",
        lambda: _flowers(sgd(0.1, 0.9), 30),
    ),
    Scenario(
        "wine_normalised",
        "Raw inputs behind a BatchNormalization.",
        _normalised_wine,
    ),
    Scenario(
        "wine_two_heads", "A class and a number from one trunk.", _two_heads
    ),
    Scenario("circles_logits", "Two circles, logits.", _circles),
)
