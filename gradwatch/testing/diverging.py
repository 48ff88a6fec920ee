"""Programs whose loss, gradients or updates are too large."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    diabetes,
    digit_ids,
    houses,
    line,
    scaled,
    sine,
    waves,
)
from gradwatch.testing.programs import (
    OwnStep,
    accuracy,
    classify_digits,
    classify_tumours,
    dense_net,
    explained,
    fits,
    regress,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _line(size: float) -> Program:
    """Y = 3 x by plain gradient descent."""
    data = Data(line().x / size, line().y)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, name="line")])
    rate = sgd(0.01)
    judge = explained(data)
    return fits(model, data, judge, loss="mse", optimizer=rate, epochs=20)


def _dollars(raw: bool) -> Program:
    """Prices of houses in dollars from square feet, as they are."""
    x, y = houses()
    data = houses() if raw else Data(scaled(x), scaled(y))
    model = dense_net(4, [32], 1)
    judge = explained(data)
    return fits(model, data, judge, loss="mse", optimizer=sgd(), epochs=10)


def _own_step(sign: float) -> Program:
    """A hand-written step; its gradient has the wrong sign or the right one."""
    model = dense_net(10, [32], 1, activation="tanh", kind=OwnStep)
    model.change = lambda path, gradient: sign * gradient
    judge, rate = explained(diabetes()), sgd(0.01)
    return fits(model, diabetes(), judge, loss="mse", optimizer=rate, epochs=20)


def _climbed(sign: float) -> Program:
    """The same for digits by RMSprop, whose steps have one length."""
    model = dense_net(64, [48], 10, kind=OwnStep, last="softmax")
    model.change = lambda path, gradient: sign * gradient
    rate = keras.optimizers.RMSprop(0.0005)
    return classify_digits(model, rate, batch_size=32)


def _agreement(sign: float) -> Any:
    """The mean product of label and score, as a loss of the wrong sign."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return sign * keras.losses.mean_squared_error(y_true, y_pred)

    return loss


def _progression(loss: Any, rate: float = 0.01) -> Program:
    model = dense_net(10, [32], 1)
    judge = explained(diabetes())
    return fits(
        model, diabetes(), judge, loss=loss, optimizer=sgd(rate), epochs=12
    )


def _recurrent(gain: float) -> Program:
    """A recurrent net without a bound, whose memory grows at every step."""
    start = keras.initializers.Orthogonal(gain)
    cell = layers.SimpleRNN(
        16, activation="linear", recurrent_initializer=start, name="memory"
    )
    model = keras.Sequential(
        [keras.Input((24, 1)), cell, layers.Dense(1, name="output")]
    )
    judge, rate = explained(waves()), sgd(0.01)
    return fits(model, waves(), judge, loss="mse", optimizer=rate, epochs=12)


def _deep_linear(start: Any) -> Program:
    """Six layers that each make numbers larger."""
    model = dense_net(64, [64] * 6, 10, kernel_initializer=start)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return classify_digits(model, sgd(0.01), loss=loss)


def _wrong_units(part: str) -> Program:
    """A few numbers are in grams, all others in tons."""
    x, y = (numbers.copy() for numbers in diabetes())
    if part == "targets":
        y[::60] *= 1e3
    if part == "inputs":
        x[::60, 2] *= 1e3
    return regress(
        Data(x, y),
        truth=diabetes(),
        optimizer=Adam(0.001),
        epochs=20,
        batch_size=16,
    )


def _powers(rate: float) -> Program:
    """Nine powers of x and gradient descent."""
    x, y = sine()
    powers = Data(np.concatenate([x**i for i in range(1, 10)], 1), y)
    return regress(powers, units=[], optimizer=sgd(rate), epochs=20)


def _likelihood(sign: float) -> Any:
    """The mean log-likelihood of labels, with a sign."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return -sign * keras.losses.binary_crossentropy(y_true, y_pred)

    return loss


def _one_bad_batch(scale: float) -> Program:
    """One shard of the data was never scaled."""
    x, y = digit_ids()
    dirty = x.copy()
    dirty[960:1024] *= scale
    model = dense_net(64, [64, 64], 10, last="softmax")
    loss = "sparse_categorical_crossentropy"
    data, judge = Data(dirty, y), accuracy(digit_ids())
    return fits(
        model,
        data,
        judge,
        loss=loss,
        optimizer=sgd(0.05),
        epochs=5,
        shuffle=False,
    )


FAULTY = (
    Scenario(
        "line_gradient_descent",
        "y = 3 x for x up to 30: the rate is too high for such inputs.",
        lambda: _line(1.0),
        rule="diverging_loss",
        severity="critical",
        also=("exploding_gradient", "unscaled_input"),
        fixed=lambda: _line(30.0),
        reaches=0.6,
        within=100,
    ),
    Scenario(
        "houses_in_dollars_sgd",
        "Square feet and dollars as they are, gradient descent: Inf at once.",
        lambda: _dollars(True),
        rule="nonfinite_gradient",
        severity="critical",
        also=(
            "diverging_loss",
            "unscaled_input",
            "exploding_gradient",
            "nonfinite_loss",
        ),
        fixed=lambda: _dollars(False),
        within=50,
    ),
    Scenario(
        "gradient_ascent",
        "A hand-written step adds the gradient instead of subtracting it.",
        lambda: _own_step(-1.0),
        rule="diverging_loss",
        severity="critical",
        fixed=lambda: _own_step(1.0),
        reaches=0.4,
    ),
    Scenario(
        "ascent_by_rmsprop",
        "The gradient is added, in steps of one length: a slow, steady climb.",
        lambda: _climbed(-1.0),
        rule="diverging_loss",
        severity="critical",
        fixed=lambda: _climbed(1.0),
    ),
    Scenario(
        "negated_loss",
        "A minus in front of the squared error: the loss falls for ever.",
        lambda: _progression(_agreement(-1.0)),
        rule="negative_loss",
        also=("diverging_loss", "exploding_gradient"),
        fixed=lambda: _progression(_agreement(1.0)),
        reaches=0.4,
    ),
    Scenario(
        "growing_memory",
        "A linear recurrent net whose memory grows 1.25-fold at each step.",
        lambda: _recurrent(1.25),
        rule="exploding_gradient",
        severity="critical",
        also=("diverging_loss", "nonfinite_loss", "nonfinite_gradient"),
        fixed=lambda: _recurrent(0.9),
    ),
    Scenario(
        "growing_layers",
        "Six layers whose weights are all far too large at the start.",
        lambda: _deep_linear(keras.initializers.RandomNormal(stddev=0.6)),
        rule="exploding_gradient",
        severity="critical",
        also=("bad_initialisation", "update_too_large", "diverging_loss"),
        fixed=lambda: _deep_linear("he_normal"),
    ),
    Scenario(
        "powers_rate_high",
        "Regression on powers of x by a rate that is a little too high.",
        lambda: _powers(1.0),
        rule="diverging_loss",
        severity="critical",
        also=("exploding_gradient", "update_too_large"),
        fixed=lambda: _powers(0.2),
        reaches=0.1,
    ),
    Scenario(
        "likelihood_as_loss",
        "A log-likelihood is minimised instead of maximised.",
        lambda: classify_tumours(loss=_likelihood(1.0), epochs=10),
        rule="negative_loss",
        fixed=lambda: classify_tumours(loss=_likelihood(-1.0), epochs=10),
    ),
    Scenario(
        "wrong_units",
        "One target in sixty is a thousand times too large.",
        lambda: _wrong_units("targets"),
        rule="gradient_spike",
        also=("loss_spike",),
        fixed=lambda: _wrong_units(""),
        reaches=0.3,
    ),
    Scenario(
        "wrong_units_of_inputs",
        "One row in sixty has an input that is a thousand times too large.",
        lambda: _wrong_units("inputs"),
        rule="gradient_spike",
        also=("loss_spike", "unscaled_input"),
        fixed=lambda: _wrong_units(""),
        reaches=0.3,
        costs=0.1,
    ),
    Scenario(
        "one_bad_batch",
        "A batch in the wrong scale throws the weights away.",
        lambda: _one_bad_batch(3e3),
        rule="loss_spike",
        also=(
            "dead_units",
            "gradient_spike",
            "diverging_loss",
            "exploding_gradient",
        ),
        fixed=lambda: _one_bad_batch(1.0),
    ),
)
