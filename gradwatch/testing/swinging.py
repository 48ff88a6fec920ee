"""Programs whose loss swings: for ever, or only at first sight."""

from __future__ import annotations

import keras
import numpy as np
from keras.optimizers import Adam, RMSprop

from gradwatch.testing.data import Data, cancer, diabetes, digit_ids
from gradwatch.testing.programs import (
    accuracy,
    dense_net,
    explained,
    fits,
    regress,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY", "HEALTHY"]


def _again(data: Data, times: int = 50) -> Data:
    """The same examples many times, in an epoch of as many whole batches."""
    x, y = data
    return Data(np.concatenate([x] * times), np.concatenate([y] * times))


def _all_digits(rate: float) -> Program:
    """Gradient descent on all digits at once."""
    return fits(
        dense_net(64, [32], 10, activation="tanh", last="softmax"),
        _again(digit_ids()),
        accuracy(digit_ids()),
        loss="sparse_categorical_crossentropy",
        optimizer=sgd(rate),
        epochs=6,
        batch_size=1797,
        shuffle=False,
    )


def _all_patients(rate: float) -> Program:
    """RMSprop on all patients at once."""
    return regress(
        _again(diabetes()),
        truth=diabetes(),
        optimizer=RMSprop(rate),
        epochs=6,
        batch_size=442,
        shuffle=False,
    )


def _robust(rate: float, momentum: float = 0.0) -> Program:
    """Errors whose slope is the same wherever they are large."""
    return regress(
        diabetes(),
        loss=keras.losses.Huber(0.1),
        optimizer=sgd(rate, momentum),
        epochs=25,
    )


def _edge() -> Program:
    """Gradient descent that settles where the curvature is 2 over the rate."""
    x, y = diabetes()
    data = Data(x, np.tanh(y))
    return fits(
        dense_net(10, [32], 1, activation="tanh", last="tanh"),
        _again(data),
        explained(data),
        loss="mse",
        optimizer=sgd(0.3),
        epochs=6,
        batch_size=442,
        shuffle=False,
    )


def _in_turn() -> Program:
    """A batch of malignant tumours and one of the others, in turn."""
    x, y = cancer()
    order = np.argsort(y[:568, 0], kind="stable")
    data = Data(x[order], y[order])
    return fits(
        dense_net(30, [16], 1, last="sigmoid"),
        _again(data),
        accuracy(data),
        loss="binary_crossentropy",
        optimizer=Adam(0.01),
        epochs=4,
        batch_size=284,
        shuffle=False,
    )


def _in_order() -> Program:
    """Digits sorted by class, in the same order in each epoch."""
    x, y = digit_ids()
    order = np.concatenate([np.flatnonzero(y % 2 == odd) for odd in (0, 1)])
    data = Data(x[order], y[order])
    return fits(
        dense_net(64, [32], 10, last="softmax"),
        data,
        accuracy(data),
        loss="sparse_categorical_crossentropy",
        optimizer=sgd(0.1),
        epochs=15,
        batch_size=64,
        shuffle=False,
    )


FAULTY = (
    Scenario(
        "all_digits_rate_ten",
        "Gradient descent on all digits at once with a rate of 10.",
        lambda: _all_digits(10.0),
        rule="oscillating_loss",
        also=("update_too_large", "diverging_loss", "saturated_units"),
        fixed=lambda: _all_digits(1.0),
    ),
    Scenario(
        "all_patients_rmsprop",
        "RMSprop on all patients at once with a rate of 0.2.",
        lambda: _all_patients(0.2),
        rule="oscillating_loss",
        also=("update_too_large",),
        fixed=lambda: _all_patients(0.002),
    ),
    Scenario(
        "robust_rate_ten",
        "Huber's loss and a rate of 10: its slope is bounded, so is the loss.",
        lambda: _robust(10.0),
        rule="oscillating_loss",
        also=("update_too_large",),
        fixed=lambda: _robust(0.3),
        reaches=0.4,
    ),
    Scenario(
        "robust_momentum",
        "Huber's loss, momentum and a rate of 3.",
        lambda: _robust(3.0, 0.9),
        rule="oscillating_loss",
        also=("update_too_large",),
        fixed=lambda: _robust(0.1, 0.9),
        reaches=0.4,
    ),
)

HEALTHY = (
    Scenario(
        "edge_of_stability",
        "The loss goes up and down at each step, and falls.",
        _edge,
        reaches=0.5,
    ),
    Scenario(
        "two_batches_in_turn",
        "An easy and a hard batch in turn: the loss has a period of two.",
        _in_turn,
        reaches=0.8,
    ),
    Scenario(
        "sorted_digits",
        "Even digits first, then odd ones, in the same order in each epoch.",
        _in_order,
        reaches=0.5,
    ),
)
