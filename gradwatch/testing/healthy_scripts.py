"""Healthy programs on the digits that freeze, resume, stop early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import digit_ids
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    dense_digits,
    dense_net,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["HEALTHY"]

_LOSS = "sparse_categorical_crossentropy"


def _backbone() -> Any:
    """A trunk that was trained on the digits 0 to 4."""
    x, y = digit_ids()
    trunk = keras.Sequential([keras.Input((64,))], name="backbone")
    trunk.add(layers.Dense(64, "relu", name="trunk_1"))
    trunk.add(layers.Dense(32, "relu", name="trunk_2"))
    model = keras.Sequential([trunk, layers.Dense(5, "softmax")])
    model.compile("adam", _LOSS)
    model.fit(x[y < 5], y[y < 5], epochs=8, verbose=0)
    return trunk


def _frozen() -> Program:
    """A new head on a trained trunk that stays as it is."""
    trunk = _backbone()
    trunk.trainable = False
    head = layers.Dense(10, "softmax", name="head")
    model = keras.Sequential([keras.Input((64,)), trunk, head])
    return classify_digits(model, Adam(0.01))


def _unfrozen() -> Program:
    """First the head alone, then all of it at a tenth of the rate."""
    trunk = _backbone()
    head = layers.Dense(10, "softmax", name="head")
    model = keras.Sequential([keras.Input((64,)), trunk, head])
    x, y = digit_ids()

    def train(watching: Sequence[Any]) -> None:
        for trainable, rate in ((False, 0.01), (True, 0.001)):
            trunk.trainable = trainable
            model.compile(Adam(rate), _LOSS)
            model.fit(
                x, y, batch_size=64, epochs=5, verbose=0, callbacks=[*watching]
            )

    return Program(train, lambda: accuracy(digit_ids())(model))


def _resumed() -> Program:
    """Goes on from a checkpoint; the first half was not watched."""
    model = dense_net(64, [64, 64], 10, last="softmax")
    program = classify_digits(model, Adam(0.003), epochs=6)
    program.train([])
    return program


def _interrupted() -> Program:
    """Three fits of the same model, one after the other."""
    model = dense_net(64, [64], 10, last="softmax")
    program = classify_digits(model, sgd(0.1, 0.9), epochs=3)

    def train(watching: Sequence[Any]) -> None:
        for _ in range(3):
            program.train(watching)

    return Program(train, program.quality)


def _stopped() -> Program:
    patience = keras.callbacks.EarlyStopping(
        patience=3, restore_best_weights=True
    )
    rate = Adam(0.01)
    return dense_digits(
        rate, callbacks=[patience], validation_split=0.2, epochs=25
    )


def _plateau() -> Program:
    slower = keras.callbacks.ReduceLROnPlateau("loss", 0.3, 2, min_delta=0.01)
    return dense_digits(sgd(0.3, 0.9), callbacks=[slower], epochs=12)


HEALTHY = (
    Scenario(
        "digits_frozen_backbone",
        "A trained trunk that stays as it is.",
        _frozen,
        reaches=0.7,
    ),
    Scenario("digits_unfreezing", "The head first, then all of it.", _unfrozen),
    Scenario("digits_resumed", "Goes on from a checkpoint.", _resumed),
    Scenario("digits_three_fits", "One fit after the other.", _interrupted),
    Scenario(
        "digits_early_stopping",
        "Ends when validation does not improve.",
        _stopped,
    ),
    Scenario(
        "digits_rate_on_plateau", "The rate falls on each plateau.", _plateau
    ),
)
