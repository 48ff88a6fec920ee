"""Programs whose units are dead or saturated, or began badly."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    cancer,
    diabetes,
    digit_ids,
    digit_images,
    wine,
)
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    dense_net,
    explained,
    fits,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _digits(rate: Any, units: Any = (64, 64), **options: Any) -> Program:
    options = {"last": "softmax", **options}
    return classify_digits(dense_net(64, units, 10, **options), rate)


def _started(
    kernel: Any, activation: str = "tanh", units: Any = (64, 64)
) -> Program:
    """Digits, gradient descent, hidden layers that start with `kernel`."""
    options = {"activation": activation, "kernel_initializer": kernel}
    return _digits(sgd(0.05, 0.9), units, **options)


def _wide_pixels(white: float, activation: str) -> Program:
    """Pixels from 0 to `white` into units that are bounded."""
    x, y = digit_ids()
    data = Data(x * white, y)
    model = dense_net(64, [64], 10, activation=activation, last="softmax")
    loss = "sparse_categorical_crossentropy"
    rate = sgd(0.05)
    return fits(
        model, data, accuracy(data), loss=loss, optimizer=rate, epochs=12
    )


def _bounded_wine(raw: bool) -> Program:
    """Wines, as measured or standardised, into sigmoids."""
    model = dense_net(13, [16], 3, activation="sigmoid", last="softmax")
    data, loss = wine(raw), "sparse_categorical_crossentropy"
    rate = Adam(0.01)
    return fits(
        model, data, accuracy(data), loss=loss, optimizer=rate, epochs=30
    )


def _images(bias: float) -> Program:
    """A small convolutional net whose biases start at `bias`."""
    start = keras.initializers.Constant(bias)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu", bias_initializer=start),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    data, loss = digit_images(), "sparse_categorical_crossentropy"
    return fits(model, data, accuracy(data), loss=loss, batch_size=64)


def _progression(rate: float) -> Program:
    """Raw targets around 150; a large first step kills all units."""
    model = dense_net(10, [32, 32], 1)
    data, judge = diabetes(True), explained(diabetes(True))
    return fits(model, data, judge, loss="mse", optimizer=sgd(rate), epochs=20)


def _tables(kernel: Any, data: Data, head: Any = None) -> Program:
    """A table; all layers start with `kernel`."""
    model = dense_net(
        data.x.shape[1],
        [16],
        1,
        last="sigmoid",
        kernel_initializer=kernel,
        head={"kernel_initializer": head or kernel},
    )
    judge, loss = accuracy(data), "binary_crossentropy"
    return fits(model, data, judge, loss=loss, optimizer=sgd(0.05), epochs=12)


def _cultivars(kernel: Any) -> Program:
    model = dense_net(
        13,
        [12],
        3,
        activation="tanh",
        last="softmax",
        kernel_initializer=kernel,
        head={"kernel_initializer": kernel},
    )
    judge, loss = accuracy(wine()), "sparse_categorical_crossentropy"
    rate = sgd(0.1)
    return fits(model, wine(), judge, loss=loss, optimizer=rate, epochs=25)


def _normal(size: float) -> Any:
    return keras.initializers.RandomNormal(stddev=size)


FAULTY = (
    Scenario(
        "dead_from_the_start",
        "Biases of -10 keep every unit of the second layer below 0.",
        lambda: _digits(
            "adam", bias_initializer=keras.initializers.Constant(-10.0)
        ),
        rule="dead_units",
        subject="hidden_",
        also=("zero_gradient",),
        fixed=lambda: _digits("adam"),
    ),
    Scenario(
        "dead_feature_maps",
        "Biases of -4 keep every feature map below 0.",
        lambda: _images(-4.0),
        rule="dead_units",
        subject="conv2d",
        also=("zero_gradient",),
        fixed=lambda: _images(0.0),
    ),
    Scenario(
        "killed_by_first_steps",
        "Large targets and a high rate: the first steps kill all units.",
        lambda: _progression(0.05),
        rule="dead_units",
        subject="hidden_",
        also=(
            "constant_output",
            "diverging_loss",
            "zero_gradient",
            "unscaled_target",
        ),
        fixed=lambda: _progression(0.0001),
        reaches=0.3,
    ),
    Scenario(
        "raw_pixels_into_tanh",
        "Pixels from 0 to 255 drive every tanh to its bounds.",
        lambda: _wide_pixels(255.0, "tanh"),
        rule="saturated_units",
        subject="hidden_1",
        also=("unscaled_input",),
        fixed=lambda: _wide_pixels(1.0, "tanh"),
    ),
    Scenario(
        "raw_wine_into_sigmoid",
        "Inputs up to 1,680 drive every sigmoid to its bounds.",
        lambda: _bounded_wine(True),
        rule="saturated_units",
        subject="hidden_1",
        also=("unscaled_input",),
        fixed=lambda: _bounded_wine(False),
    ),
    Scenario(
        "huge_weights_into_tanh",
        "Weights that start 100 times too large saturate two layers.",
        lambda: _started(_normal(15.0)),
        rule="saturated_units",
        subject="hidden_",
        also=("bad_initialisation",),
        fixed=lambda: _started("glorot_uniform"),
        costs=0.15,
    ),
    Scenario(
        "constant_weights",
        "All weights start as 0.1: the units of a layer stay copies.",
        lambda: _started(keras.initializers.Constant(0.1), "relu"),
        rule="symmetric_weights",
        subject="hidden_",
        also=("bad_initialisation",),
        fixed=lambda: _started("he_uniform", "relu"),
    ),
    Scenario(
        "cultivars_from_ones",
        "All weights of a small net start as 1.",
        lambda: _cultivars("ones"),
        rule="symmetric_weights",
        subject="hidden_1",
        also=("bad_initialisation",),
        fixed=lambda: _cultivars("glorot_uniform"),
        costs=0.15,
    ),
    Scenario(
        "zero_weights",
        "All hidden weights start as 0: no ReLU ever gets a gradient.",
        lambda: _started("zeros", "relu"),
        rule="bad_initialisation",
        subject="hidden_",
        also=("zero_gradient", "symmetric_weights", "dead_units"),
        fixed=lambda: _started("he_uniform", "relu"),
    ),
    Scenario(
        "tiny_weights",
        "Weights that start at 1e-4 in four layers pass nothing on.",
        lambda: _started(_normal(1e-4), "tanh", (32,) * 4),
        rule="bad_initialisation",
        subject="hidden_",
        also=("vanishing_gradient", "stalled_loss"),
        fixed=lambda: _started("glorot_uniform", "tanh", (32,) * 4),
    ),
    Scenario(
        "huge_weights_of_tumours",
        "Weights of standard deviation 30: the first loss is in the hundreds.",
        lambda: _tables(_normal(30.0), cancer()),
        rule="bad_initialisation",
        also=("exploding_gradient", "saturated_units"),
        fixed=lambda: _tables("glorot_uniform", cancer()),
        costs=0.03,
    ),
)
