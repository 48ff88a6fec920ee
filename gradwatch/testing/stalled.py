"""Programs that cannot learn although nothing in them is too large."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    circles,
    first_symbol,
    houses,
    scaled,
)
from gradwatch.testing.programs import (
    accuracy,
    dense_net,
    explained,
    fits,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _memory(kind: Any, length: int, **options: Any) -> Program:
    """Remember the first symbol of a sequence until its end."""
    data = first_symbol(length)
    model = keras.Sequential(
        [
            keras.Input((length,)),
            layers.Embedding(4, 8, name="symbols"),
            kind(24, name="memory", **options),
            layers.Dense(4, "softmax", name="output"),
        ]
    )
    adam, loss = Adam(0.02), "sparse_categorical_crossentropy"
    return fits(
        model, data, accuracy(data), loss=loss, optimizer=adam, epochs=9
    )


def _ring(units: list[int]) -> Program:
    model = dense_net(2, units, 1, last="sigmoid")
    adam, judge = Adam(0.02), accuracy(circles())
    loss = "binary_crossentropy"
    return fits(model, circles(), judge, loss=loss, optimizer=adam, epochs=20)


def _shuffled(apart: bool) -> Program:
    """Inputs are shuffled, and targets on their own."""
    x, y = houses()
    order = np.random.default_rng(8).permutation(len(x))
    truth = Data(scaled(x), scaled(y))
    data = Data(truth.x[order], truth.y if apart else truth.y[order])
    model = dense_net(4, [8], 1)
    judge, adam = explained(truth), Adam(0.01)
    return fits(model, data, judge, loss="mse", optimizer=adam, epochs=15)


FAULTY = (
    Scenario(
        "short_memory",
        "A simple recurrent net is to remember a symbol for 10 steps.",
        lambda: _memory(layers.SimpleRNN, 10, activation="sigmoid"),
        rule="stalled_loss",
        also=("vanishing_gradient", "constant_output"),
        fixed=lambda: _memory(layers.GRU, 10),
    ),
    Scenario(
        "line_between_circles",
        "Logistic regression cannot part two circles.",
        lambda: _ring([]),
        rule="stalled_loss",
        also=("constant_output",),
        fixed=lambda: _ring([16]),
    ),
    Scenario(
        "shuffled_apart",
        "Inputs and targets were shuffled differently.",
        lambda: _shuffled(True),
        rule="stalled_loss",
        also=("constant_output",),
        fixed=lambda: _shuffled(False),
    ),
)
