"""Healthy programs on the digits: kinds of model and of data."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from keras.optimizers import Adam

from gradwatch.testing.data import Data, digit_ids, digit_images
from gradwatch.testing.digits import digits
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

__all__ = ["HEALTHY"]

_LOSS = "sparse_categorical_crossentropy"


def _layers(*stack: Any, optimizer: Any = "adam", **options: Any) -> Program:
    return classify_digits(keras.Sequential(stack), optimizer, **options)


def _soft(smoothing: float) -> Program:
    x, y = digits()
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    model, judge = (
        dense_net(64, [64], 10, last="softmax"),
        accuracy(digit_ids()),
    )
    return fits(model, Data(x, y), judge, loss=loss, batch_size=64, epochs=10)


def _images(*stack: Any, optimizer: Any = "adam", epochs: int = 6) -> Program:
    """Images through `stack`, then ten classes."""
    end = [layers.Flatten(), layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack, *end])
    images, judge = digit_images(), accuracy(digit_images())
    return fits(
        model,
        images,
        judge,
        loss=_LOSS,
        optimizer=optimizer,
        batch_size=64,
        epochs=epochs,
    )


def _dropout() -> Program:
    drop = [layers.Dropout(0.5), layers.Dense(128, "relu")]
    first, end = layers.Dense(128, "relu"), layers.Dense(10, "softmax")
    return _layers(
        keras.Input((64,)), first, *drop, layers.Dropout(0.5), end, epochs=10
    )


def _sparse() -> Program:
    """Many units, few of them active: a penalty sees to it."""
    penalty = keras.regularizers.L1(1e-4)
    model = dense_net(
        64,
        [256],
        10,
        last="softmax",
        activity_regularizer=penalty,
        bias_initializer=keras.initializers.Constant(-0.3),
    )
    return classify_digits(model, Adam(0.003))


def _residual() -> Program:
    """Four blocks with a way past each."""
    image = keras.Input((64,))
    x = layers.Dense(48)(image)
    for _ in range(4):
        inner = layers.Dense(48, "relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(48)(inner)])
    classes = layers.Dense(10, "softmax")(layers.LayerNormalization()(x))
    return classify_digits(keras.Model(image, classes), epochs=6)


def _noisy() -> Program:
    """Every fifth label is wrong; the loss stays high and all is well."""
    x, y = digit_ids()
    random = np.random.default_rng(0)
    labels = np.where(
        random.random(len(y)) < 0.2, random.integers(0, 10, len(y)), y
    )
    model = dense_net(64, [64], 10, last="softmax")
    return fits(
        model,
        Data(x, labels),
        accuracy(digit_ids()),
        loss=_LOSS,
        batch_size=64,
        epochs=8,
    )


def _raw() -> Program:
    """Pixels from 0 to 255 and Adam: not tidy, and it learns."""
    x, y = digit_ids()
    data = Data(x * 255, y)
    model = dense_net(64, [64, 64], 10, last="softmax")
    return fits(
        model, data, accuracy(data), loss=_LOSS, batch_size=64, epochs=8
    )


def _autoencoder(loss: str, binary: bool) -> Program:
    x = digit_ids().x
    data = Data(x, (x > 0.5).astype("f4") if binary else x)
    model = dense_net(64, [32, 12, 32], 64, last="sigmoid")
    judge, adam = explained(data), Adam(0.005)
    return fits(
        model, data, judge, loss=loss, optimizer=adam, batch_size=64, epochs=12
    )


def _normalised() -> tuple[Any, ...]:
    return (
        layers.Conv2D(12, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(12, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
    )


HEALTHY = (
    Scenario(
        "digits_converged",
        "Converged, and idle for a long time since.",
        lambda: dense_digits(Adam(0.005), epochs=30),
    ),
    Scenario(
        "digits_convolutions",
        "A small convolutional net.",
        lambda: _images(
            layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D()
        ),
    ),
    Scenario(
        "digits_batch_norm",
        "Convolutions with BatchNormalization.",
        lambda: _images(*_normalised(), optimizer=sgd(0.05, 0.9), epochs=5),
    ),
    Scenario("digits_dropout", "Half of the units are dropped.", _dropout),
    Scenario(
        "digits_sparse_relu", "Most units are silent for most images.", _sparse
    ),
    Scenario(
        "digits_deep_relu",
        "Eight layers with the right initialisation.",
        lambda: classify_digits(
            dense_net(
                64, [48] * 8, 10, last="softmax", kernel_initializer="he_normal"
            )
        ),
    ),
    Scenario(
        "digits_deep_tanh",
        "Five tanh layers.",
        lambda: classify_digits(
            dense_net(64, [48] * 5, 10, activation="tanh", last="softmax"),
            sgd(0.05, 0.9),
        ),
    ),
    Scenario(
        "digits_sigmoid",
        "One sigmoid layer.",
        lambda: classify_digits(
            dense_net(64, [64], 10, activation="sigmoid", last="softmax"),
            Adam(0.01),
        ),
    ),
    Scenario("digits_residual", "Four residual blocks.", _residual),
    Scenario(
        "digits_hard_bounds",
        "Bounded ReLUs, many at their bounds.",
        lambda: classify_digits(
            dense_net(64, [128], 10, activation="relu6", last="softmax"),
            Adam(0.01),
        ),
    ),
    Scenario(
        "digits_squares",
        "Squares of one-hot targets and ten sigmoids.",
        lambda: fits(
            dense_net(64, [64], 10, last="sigmoid"),
            Data(*digits()),
            accuracy(digit_ids()),
            loss="mse",
            batch_size=64,
        ),
    ),
    Scenario(
        "digits_label_smoothing",
        "Smoothed labels: the loss has a floor.",
        lambda: _soft(0.2),
    ),
    Scenario(
        "digits_wrong_labels",
        "Every fifth label is wrong.",
        _noisy,
        reaches=0.7,
    ),
    Scenario("digits_raw_pixels_adam", "Pixels from 0 to 255 and Adam.", _raw),
    Scenario(
        "digits_autoencoder",
        "An autoencoder by squares.",
        lambda: _autoencoder("mse", False),
        reaches=0.5,
    ),
    Scenario(
        "digits_binary_autoencoder",
        "An autoencoder of black and white pixels.",
        lambda: _autoencoder("binary_crossentropy", True),
        reaches=0.5,
    ),
)
