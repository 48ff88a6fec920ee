"""Programs whose data, or what they hold back for validation, are the fault."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    cancer,
    diabetes,
    digit_ids,
    factors,
    houses,
    scaled,
    wine,
)
from gradwatch.testing.programs import (
    accuracy,
    dense_net,
    explained,
    fits,
    regress,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _raw_wine(raw: bool, rate: Any) -> Program:
    model = dense_net(13, [16], 3, last="softmax")
    data, loss = wine(raw), "sparse_categorical_crossentropy"
    return fits(
        model, data, accuracy(data), loss=loss, optimizer=rate, epochs=40
    )


def _raw_tumours(raw: bool) -> Program:
    """Logistic regression by gradient descent."""
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(1, "sigmoid", name="score")]
    )
    data, loss = cancer(raw), "binary_crossentropy"
    return fits(
        model, data, accuracy(data), loss=loss, optimizer=sgd(), epochs=15
    )


def _prices(unit: Any) -> Program:
    """Houses with scaled inputs; prices in dollars, made ready by `unit`."""
    data = Data(scaled(houses().x), unit(houses().y))
    return regress(data, units=[32, 32], optimizer="adam", epochs=12)


def _autoencoder(x: Any, units: int) -> Program:
    """Sigmoid and cross-entropy."""
    model = dense_net(64, [units], 64, last="sigmoid")
    data, loss = Data(x, x), "binary_crossentropy"
    adam = Adam(0.005)
    return fits(
        model, data, explained(data), loss=loss, optimizer=adam, epochs=12
    )


def _bottleneck(kept: int) -> Program:
    """Sixteen numbers through four units."""
    data = factors(kept)
    model = dense_net(16, [4], 16, activation=None)
    adam = Adam(0.01)
    return fits(
        model, data, explained(data), loss="mse", optimizer=adam, epochs=12
    )


def _binary(x: Any) -> Any:
    return (x > 0.5).astype(np.float32)


def _learned_by_heart(rows: int, units: list[int], drop: float) -> Program:
    """A table with validation on the rest of it."""
    x, y = diabetes()
    rest = Data(x[rows:], y[rows:])
    model = dense_net(10, units, 1)
    if drop:
        regular = keras.regularizers.L2(drop)
        model = dense_net(10, units, 1, kernel_regularizer=regular)
    return fits(
        model,
        Data(x[:rows], y[:rows]),
        explained(rest),
        loss="mse",
        optimizer=Adam(0.01),
        epochs=25,
        validation_data=rest,
    )


def _noisy_labels(noise: float) -> Program:
    """A few digits, some with a wrong label, a large net, validation."""
    x, y = digit_ids()
    random = np.random.default_rng(9)
    wrong = random.random(300) < noise
    labels = np.where(wrong, random.integers(0, 10, 300), y[:300])
    rest = Data(x[300:1300], y[300:1300])
    model = dense_net(64, [256], 10, last="softmax")
    return fits(
        model,
        Data(x[:300], labels),
        accuracy(rest),
        loss="sparse_categorical_crossentropy",
        optimizer=Adam(0.005),
        epochs=25,
        validation_data=rest,
    )


_SCALES = (
    Scenario(
        "raw_wine_sgd",
        "Wines with proline up to 1,680 among inputs around 1.",
        lambda: _raw_wine(True, sgd(0.01)),
        rule="unscaled_input",
        subject="inputs",
        also=("stalled_loss", "exploding_gradient", "dead_units"),
        fixed=lambda: _raw_wine(False, sgd(0.01)),
    ),
    Scenario(
        "raw_tumours_sgd",
        "Logistic regression on areas up to 4,254 among inputs below 1.",
        lambda: _raw_tumours(True),
        rule="unscaled_input",
        subject="inputs",
        also=("oscillating_loss", "exploding_gradient", "update_too_large"),
        fixed=lambda: _raw_tumours(False),
        costs=0.05,
    ),
    Scenario(
        "prices_in_billions",
        "Prices in billions of dollars: all are nearly 0.",
        lambda: _prices(lambda y: 1e-9 * y),
        rule="unscaled_target",
        subject="targets",
        also=("slow_loss",),
        fixed=lambda: _prices(scaled),
    ),
    Scenario(
        "raw_progression_adam",
        "Targets up to 346 by squares and Adam as it comes.",
        lambda: regress(diabetes(True), optimizer="adam", epochs=15),
        rule="unscaled_target",
        subject="targets",
        also=("slow_loss", "update_too_small"),
        fixed=lambda: regress(diabetes(), optimizer="adam", epochs=15),
        reaches=0.3,
    ),
    Scenario(
        "prices_in_dollars_adam",
        "Prices in dollars by squares and Adam: it would take forever.",
        lambda: _prices(lambda y: y),
        rule="unscaled_target",
        subject="targets",
        also=("slow_loss", "stalled_loss", "update_too_small"),
        fixed=lambda: _prices(scaled),
    ),
)

_FLOORS = (
    Scenario(
        "entropy_of_targets",
        "An autoencoder by cross-entropy of numbers uniform in [0, 1].",
        lambda: _autoencoder(
            np.random.default_rng(0).random((1500, 64), "f4"), 128
        ),
        rule="loss_floor",
        severity="info",
        costs=0.0,
        fixed=lambda: _autoencoder(_binary(digit_ids().x), 128),
    ),
    Scenario(
        "independent_features",
        "Sixteen independent numbers through four units: most is lost.",
        lambda: _bottleneck(16),
        rule="loss_floor",
        severity="info",
        fixed=lambda: _bottleneck(4),
    ),
)

_VALIDATION = (
    Scenario(
        "table_by_heart",
        "A large net learns 150 rows by heart.",
        lambda: _learned_by_heart(150, [128, 128], 0.0),
        rule="overfitting",
        fixed=lambda: _learned_by_heart(300, [8], 0.05),
        reaches=0.3,
        costs=0.1,
    ),
    Scenario(
        "noise_by_heart",
        "A large net learns wrong labels by heart.",
        lambda: _noisy_labels(0.5),
        rule="overfitting",
        fixed=lambda: _noisy_labels(0.0),
    ),
)

FAULTY = (
    *_SCALES,
    *_FLOORS,
    *_VALIDATION,
)
