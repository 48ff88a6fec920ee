"""Healthy programs that predict numbers, by all kinds of loss."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    counts,
    diabetes,
    factors,
    houses,
    line,
    ratings,
    scaled,
    sine,
)
from gradwatch.testing.programs import (
    dense_net,
    explained,
    fits,
    regress,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["HEALTHY"]

_IDS = "sparse_categorical_crossentropy"


def _progression(loss: Any, raw: bool = False, rate: float = 0.01) -> Program:
    model, data = dense_net(10, [32], 1), diabetes(raw)
    adam = Adam(rate)
    return fits(
        model, data, explained(data), loss=loss, optimizer=adam, epochs=15
    )


def _pinball(y_true: Any, y_pred: Any) -> Any:
    """The loss whose minimum is the median, times a slope of 0.5."""
    error = y_true - y_pred
    return ops.mean(ops.maximum(0.5 * error, -0.5 * error), -1)


def _likelihood(y_true: Any, y_pred: Any) -> Any:
    """Gauss' negative log-likelihood; below 0 for small deviations."""
    mean, log_deviation = y_pred[:, :1], y_pred[:, 1:]
    error = (y_true - mean) * ops.exp(-log_deviation)
    return 0.5 * ops.square(error) + log_deviation


def _gauss() -> Program:
    """A mean and a deviation of small numbers."""
    x, y = houses()
    data = Data(scaled(x), 0.1 * scaled(y))
    model = dense_net(4, [32], 2)

    def judge(model: Any) -> float:
        mean = keras.Model(model.inputs, model.outputs[0][:, :1])
        return explained(data)(mean)

    return fits(
        model, data, judge, loss=_likelihood, optimizer=Adam(0.005), epochs=15
    )


def _poisson() -> Program:
    model, judge = dense_net(5, [], 1, last="exponential"), explained(counts())
    return fits(
        model, counts(), judge, loss="poisson", optimizer=Adam(0.01), epochs=8
    )


def _prices(weight: float, rate: Any) -> Program:
    """Standardised prices; the loss is squares times `weight`."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return weight * ops.mean(ops.square(y_true - y_pred), -1)

    x, y = houses()
    data = Data(scaled(x), scaled(y))
    return regress(data, loss=loss, optimizer=rate, epochs=12)


def _line() -> Program:
    data = Data(line().x / 30, line().y / 90)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    judge, rate = explained(data), sgd(0.3)
    return fits(model, data, judge, loss="mse", optimizer=rate, epochs=30)


def _curve(activation: str) -> Program:
    model = dense_net(1, [48, 48], 1, activation=activation)
    judge, adam = explained(sine()), Adam(0.01)
    return fits(model, sine(), judge, loss="mse", optimizer=adam, epochs=30)


class _Taste(keras.Model):
    """Ratings as products of what users like and what films have."""

    def __init__(self) -> None:
        super().__init__(name="taste")
        self.users = layers.Embedding(60, 4, name="users")
        self.films = layers.Embedding(40, 4, name="films")

    def call(self, inputs: Any) -> Any:
        """Returns a rating `[batch, 1]` of each pair of ids."""
        product = self.users(inputs[:, 0]) * self.films(inputs[:, 1])
        return ops.sum(product, -1, keepdims=True)


def _ratings() -> Program:
    judge, adam = explained(ratings()), Adam(0.02)
    return fits(
        _Taste(), ratings(), judge, loss="mse", optimizer=adam, batch_size=100
    )


def _bottleneck() -> Program:
    data = factors(4)
    model = dense_net(16, [8, 4, 8], 16, activation="linear")
    return fits(
        model,
        data,
        explained(data),
        loss="mse",
        optimizer=Adam(0.01),
        epochs=12,
    )


def _weighted() -> Program:
    """A third of the examples weigh nothing."""
    x, y = diabetes()
    model, weights = dense_net(10, [32], 1), (np.arange(len(x)) % 3 > 0) * 1.0
    judge = explained(diabetes())
    return fits(
        model,
        Data(x, y),
        judge,
        loss="mse",
        optimizer=Adam(0.01),
        epochs=12,
        sample_weight=weights,
    )


def _validated() -> Program:
    """A small regularised net, with validation that follows."""
    x, y = diabetes()
    regular = keras.regularizers.L2(0.02)
    model = dense_net(10, [16], 1, kernel_regularizer=regular)
    rest = Data(x[300:], y[300:])
    return fits(
        model,
        Data(x[:300], y[:300]),
        explained(rest),
        loss="mse",
        optimizer=Adam(0.005),
        epochs=20,
        validation_data=rest,
    )


HEALTHY = (
    Scenario(
        "progression_absolute",
        "Absolute errors.",
        lambda: _progression("mae"),
        reaches=0.4,
    ),
    Scenario(
        "progression_huber",
        "Huber's loss.",
        lambda: _progression("huber"),
        reaches=0.4,
    ),
    Scenario(
        "progression_pinball",
        "A quantile loss of one's own.",
        lambda: _progression(_pinball),
        reaches=0.4,
    ),
    Scenario(
        "progression_log_cosh",
        "Log-cosh.",
        lambda: _progression("log_cosh"),
        reaches=0.4,
    ),
    Scenario(
        "progression_raw_targets",
        "Targets up to 346: a large loss, and it learns.",
        lambda: _progression("mse", True, 0.1),
        reaches=0.4,
    ),
    Scenario(
        "progression_weighted",
        "A third of the examples weighs nothing.",
        _weighted,
        reaches=0.3,
    ),
    Scenario(
        "progression_validated",
        "Validation follows training.",
        _validated,
        reaches=0.3,
    ),
    Scenario(
        "gauss_below_zero",
        "A negative log-likelihood that rightly is negative.",
        _gauss,
        reaches=0.8,
    ),
    Scenario(
        "counts_poisson",
        "Counts by Poisson's likelihood.",
        _poisson,
        reaches=0.3,
    ),
    Scenario(
        "prices_small",
        "A loss around 0.0001, and Adam.",
        lambda: _prices(1e-4, Adam(0.01)),
        reaches=0.7,
    ),
    Scenario(
        "prices_large",
        "A loss in the millions, and Adam.",
        lambda: _prices(1e6, Adam(0.01)),
        reaches=0.7,
    ),
    Scenario(
        "prices_sgd",
        "Standardised, gradient descent.",
        lambda: _prices(1.0, sgd(0.05)),
        reaches=0.7,
    ),
    Scenario("line_scaled", "y = 3 x, scaled.", _line, reaches=0.9),
    Scenario("sine_tanh", "A curve through tanh.", lambda: _curve("tanh")),
    Scenario("sine_relu", "A curve through ReLU.", lambda: _curve("relu")),
    Scenario(
        "film_ratings",
        "Embeddings with sparse gradients, slow at first.",
        _ratings,
    ),
    Scenario(
        "linear_bottleneck",
        "A linear bottleneck that is wide enough.",
        _bottleneck,
        reaches=0.8,
    ),
)
