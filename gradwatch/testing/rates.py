"""Programs whose learning rate is far too high or far too low."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    diabetes,
    digit_images,
    snippets,
)
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    dense_digits,
    dense_net,
    explained,
    fits,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _bounded(optimizer: Any) -> Program:
    """Digits through two tanh layers."""
    model = dense_net(64, [64, 64], 10, activation="tanh", last="softmax")
    return classify_digits(model, optimizer)


def _jump(to: float) -> Program:
    """A schedule that jumps in the middle of training."""

    def rate(epoch: int) -> float:
        return 0.1 if epoch < 5 else to

    schedule = keras.callbacks.LearningRateScheduler(rate)
    return dense_digits(sgd(0.1, 0.9), callbacks=[schedule], epochs=10)


def _absolute(rate: float) -> Program:
    """Linear regression by absolute errors."""
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1, name="line")])
    return fits(
        model,
        diabetes(),
        explained(diabetes()),
        loss="mae",
        optimizer=sgd(rate),
        epochs=25,
    )


def _images(rate: Any) -> Program:
    """A small convolutional net by Adam."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(10, "softmax", name="output"),
        ]
    )
    adam, loss = Adam(rate), "sparse_categorical_crossentropy"
    data, judge = digit_images(), accuracy(digit_images())
    return fits(model, data, judge, loss=loss, optimizer=adam, epochs=6)


def _decays(steps: int) -> Program:
    schedule = keras.optimizers.schedules.ExponentialDecay
    return dense_digits(Adam(schedule(0.01, steps, 0.5)), units=[64])


class _Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """Grows linearly up to 0.002, within so many steps."""

    def __init__(self, steps: float) -> None:
        self._steps = steps

    def __call__(self, step: Any) -> Any:
        """See Keras."""
        return 0.002 * ops.minimum(1.0, ops.cast(step, "float32") / self._steps)


def _warm_up(whole: bool) -> Program:
    """A warm-up over ten epochs; its share is divided as whole numbers."""

    def rate(epoch: int) -> float:
        return 0.1 * ((epoch + 1) // 11 if whole else (epoch + 1) / 11)

    schedule = keras.callbacks.LearningRateScheduler(rate)
    return dense_digits(sgd(0.1), callbacks=[schedule], epochs=10, units=[64])


def _texts(rate: float) -> Program:
    """Which text a snippet is from, by a mean of embedded characters."""
    model = keras.Sequential(
        [
            keras.Input((60,)),
            layers.Embedding(128, 16, name="characters"),
            layers.GlobalAveragePooling1D(name="mean"),
            layers.Dense(4, "softmax", name="source"),
        ]
    )
    loss, data = "sparse_categorical_crossentropy", snippets()
    adam = Adam(rate)
    return fits(
        model, data, accuracy(data), loss=loss, optimizer=adam, epochs=12
    )


_HIGH = (
    Scenario(
        "huge_rate_momentum",
        "Gradient descent with momentum and a rate of 3.",
        lambda: dense_digits(sgd(3.0, 0.9)),
        rule="update_too_large",
        also=("dead_units", "diverging_loss", "loss_spike"),
        fixed=lambda: dense_digits(sgd(0.03, 0.9)),
    ),
    Scenario(
        "adam_rate_one",
        "Adam with a learning rate of 1 on tanh layers.",
        lambda: _bounded(Adam(1.0)),
        rule="update_too_large",
        also=("saturated_units", "diverging_loss"),
        fixed=lambda: _bounded(Adam(0.001)),
    ),
    Scenario(
        "rmsprop_rate_half",
        "RMSprop with a learning rate of 0.5 on a table.",
        lambda: fits(
            dense_net(10, [32], 1),
            diabetes(),
            explained(diabetes()),
            loss="mse",
            optimizer=keras.optimizers.RMSprop(0.5),
        ),
        rule="update_too_large",
        also=("diverging_loss", "oscillating_loss"),
        fixed=lambda: fits(
            dense_net(10, [32], 1),
            diabetes(),
            explained(diabetes()),
            loss="mse",
            optimizer=keras.optimizers.RMSprop(0.005),
        ),
        reaches=0.4,
    ),
    Scenario(
        "swinging_loss",
        "Absolute errors and a high rate: each step overshoots, for ever.",
        lambda: _absolute(1.0),
        rule="oscillating_loss",
        also=("update_too_large",),
        fixed=lambda: _absolute(0.02),
        reaches=0.4,
    ),
    Scenario(
        "rate_jumps",
        "A learning rate schedule jumps from 0.1 to 5 after five epochs.",
        lambda: _jump(5.0),
        rule="loss_spike",
        also=("diverging_loss", "update_too_large", "dead_units"),
        fixed=lambda: _jump(0.01),
    ),
)

_LOW = (
    Scenario(
        "rate_of_a_millionth",
        "Gradient descent with a rate of 1e-6.",
        lambda: dense_digits(sgd(1e-6), units=[64]),
        rule="update_too_small",
        also=("stalled_loss", "slow_loss"),
        fixed=lambda: dense_digits(sgd(0.1), units=[64]),
    ),
    Scenario(
        "adam_rate_tiny",
        "Adam with a rate of 1e-7 on images.",
        lambda: _images(1e-7),
        rule="update_too_small",
        also=("stalled_loss", "slow_loss"),
        fixed=lambda: _images(0.002),
    ),
    Scenario(
        "warm_up_without_end",
        "A warm-up of 10^7 steps: examples were counted, of all epochs.",
        lambda: _images(_Ramp(1e7)),
        rule="update_too_small",
        also=("stalled_loss", "slow_loss"),
        fixed=lambda: _images(_Ramp(50.0)),
    ),
    Scenario(
        "texts_rate_tiny",
        "Embeddings by Adam with a rate of 1e-6.",
        lambda: _texts(1e-6),
        rule="update_too_small",
        also=("stalled_loss", "slow_loss"),
        fixed=lambda: _texts(0.02),
    ),
    Scenario(
        "decay_too_fast",
        "A rate that halves at every fourth step is nothing after 100.",
        lambda: _decays(4),
        rule="update_too_small",
        also=("stalled_loss",),
        fixed=lambda: _decays(100),
    ),
    Scenario(
        "warm_up_never_starts",
        "A warm-up divides whole numbers: its rate is 0 for ten epochs.",
        lambda: _warm_up(True),
        rule="frozen_variable",
        also=("update_too_small", "stalled_loss"),
        fixed=lambda: _warm_up(False),
    ),
    Scenario(
        "slow_descent",
        "Gradient descent with a rate of 0.001 where 0.3 is fine.",
        lambda: dense_digits(sgd(0.001), units=[64]),
        rule="slow_loss",
        severity="info",
        also=("update_too_small",),
        fixed=lambda: dense_digits(sgd(0.3), units=[64]),
    ),
    Scenario(
        "slow_adam",
        "Adam with a rate of 1e-5 on images.",
        lambda: _images(1e-5),
        rule="slow_loss",
        severity="info",
        also=("update_too_small",),
        fixed=lambda: _images(0.002),
    ),
)

FAULTY = (*_HIGH, *_LOW)
