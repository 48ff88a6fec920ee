"""Programs whose gradient fades with depth."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from gradwatch.testing.data import (
    digit_images,
    moons,
)
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    dense_net,
    fits,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _deep(
    activation: Any, depth: int, optimizer: Any, **options: Any
) -> Program:
    model = dense_net(
        64, [32] * depth, 10, activation=activation, last="softmax"
    )
    return classify_digits(model, optimizer, **options)


def _faint(x: Any) -> Any:
    """Like tanh, with a derivative of 0.05 at most."""
    return ops.tanh(0.05 * x)


def _deep_images(activation: str) -> Program:
    """Seven convolutions on top of each other."""
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for i in range(7):
        name = f"conv_{i + 1}"
        model.add(
            layers.Conv2D(8, 3, 1, "same", activation=activation, name=name)
        )
    model.add(layers.Flatten())
    model.add(layers.Dense(10, "softmax", name="output"))
    images, loss = digit_images(), "sparse_categorical_crossentropy"
    judge, rate = accuracy(images), sgd(0.05, 0.9)
    return fits(model, images, judge, loss=loss, optimizer=rate, epochs=5)


def _bent(points: Any, activation: str) -> Program:
    """Half moons through ten narrow layers, by gradient descent."""
    model = dense_net(2, [12] * 10, 1, activation=activation, last="sigmoid")
    judge, rate = accuracy(points), sgd(0.05, 0.9)
    loss = "binary_crossentropy"
    return fits(model, points, judge, loss=loss, optimizer=rate, epochs=10)


FAULTY = (
    Scenario(
        "deep_sigmoid",
        "Eight sigmoid layers on the digits, gradient descent.",
        lambda: _deep("sigmoid", 8, sgd(0.03, 0.9)),
        rule="vanishing_gradient",
        subject="hidden_1",
        also=("stalled_loss",),
        fixed=lambda: _deep("relu", 8, sgd(0.03, 0.9)),
    ),
    Scenario(
        "faint_activation",
        "An activation of one's own whose derivative is at most 0.05.",
        lambda: _deep(_faint, 5, sgd(0.1, 0.9)),
        rule="vanishing_gradient",
        subject="hidden_1",
        also=("stalled_loss",),
        fixed=lambda: _deep("tanh", 5, sgd(0.1, 0.9)),
    ),
    Scenario(
        "deep_sigmoid_images",
        "Seven sigmoid convolutions on images of digits.",
        lambda: _deep_images("sigmoid"),
        rule="vanishing_gradient",
        subject="conv_1",
        also=("stalled_loss",),
        fixed=lambda: _deep_images("relu"),
    ),
    Scenario(
        "deep_sigmoid_moons",
        "Ten narrow sigmoid layers between two half moons.",
        lambda: _bent(moons(), "sigmoid"),
        rule="vanishing_gradient",
        subject="hidden_1",
        also=("stalled_loss",),
        fixed=lambda: _bent(moons(), "tanh"),
    ),
)
