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
    digit_ids,
    first_symbol,
    houses,
    scaled,
)
from gradwatch.testing.programs import (
    accuracy,
    dense_net,
    explained,
    fits,
    sgd,
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


def _by_class(shuffled: bool) -> Program:
    """Digits sorted by class: each batch undoes what the last one taught."""
    x, y = digit_ids()
    order = np.argsort(y, kind="stable")
    model, data = (
        dense_net(64, [64], 10, last="softmax"),
        Data(x[order], y[order]),
    )
    options: Any = {"optimizer": sgd(0.1, 0.9), "shuffle": shuffled}
    loss = "sparse_categorical_crossentropy"
    return fits(model, data, accuracy(data), loss=loss, epochs=8, **options)


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
    Scenario(
        "sorted_by_class",
        "Batches of one class each, in the same order in each epoch.",
        lambda: _by_class(False),
        rule="stalled_loss",
        also=("oscillating_loss", "update_too_large"),
        fixed=lambda: _by_class(True),
    ),
)
