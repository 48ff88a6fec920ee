"""Programs whose last layer fits neither loss nor targets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    diabetes,
    first_symbol,
    prices,
)
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    classify_tumours,
    dense_net,
    fits,
    regress,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _logits(
    inside: bool, last: Any, rate: Any = "adam", clip: bool = False
) -> Program:
    """Digits; the loss is told that it gets logits, or that it does not.

    Keras itself sees that a softmax comes right before such a loss and passes
    it by; it does not if the probabilities are clipped in between.
    """
    model = dense_net(64, [64], 10, last=last)
    if clip:
        model.add(layers.Lambda(lambda p: ops.clip(p, 1e-7, 1.0), name="safe"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=inside)
    return classify_digits(model, rate, loss=loss)


def _tags(axis: int) -> Program:
    """Each place is to be tagged by the first symbol of its sequence."""
    x, y = first_symbol(10)
    data = Data(x, np.repeat(y[:, None], 10, 1))
    model = keras.Sequential(
        [
            keras.Input((10,), dtype="int32"),
            layers.Embedding(4, 8),
            layers.GRU(24, return_sequences=True),
            layers.Dense(4, name="scores"),
            layers.Softmax(axis, name="tags"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    return fits(model, data, accuracy(data), loss=loss, optimizer=Adam(0.01))


FAULTY = (
    Scenario(
        "softmax_on_one_unit",
        "A single output with softmax is 1 for everything.",
        lambda: classify_tumours("softmax", "binary_crossentropy"),
        rule="output_mismatch",
        subject="output",
        also=("zero_gradient", "constant_output"),
        fixed=lambda: classify_tumours("sigmoid", "binary_crossentropy"),
    ),
    Scenario(
        "softmax_twice",
        "Softmax as the last layer, clipped, and again in the loss.",
        lambda: _logits(True, "softmax", sgd(0.1), clip=True),
        rule="output_mismatch",
        fixed=lambda: _logits(True, None, sgd(0.1)),
    ),
    Scenario(
        "softmax_twice_adam",
        "The same with Adam: it learns, but its loss never falls below 1.46.",
        lambda: _logits(True, "softmax", clip=True),
        rule="output_mismatch",
        fixed=lambda: _logits(True, None),
        costs=0.0,
    ),
    Scenario(
        "logits_as_probabilities",
        "Scores of ten classes in a loss that expects probabilities.",
        lambda: _logits(False, None, sgd(0.1)),
        rule="output_mismatch",
        subject="output",
        also=("zero_gradient",),
        fixed=lambda: _logits(True, None, sgd(0.1)),
    ),
    Scenario(
        "score_as_probability",
        "One score without a sigmoid in a loss that expects a probability.",
        lambda: classify_tumours(None, keras.losses.BinaryCrossentropy()),
        rule="output_mismatch",
        subject="output",
        also=("zero_gradient",),
        fixed=lambda: classify_tumours(
            None, keras.losses.BinaryCrossentropy(from_logits=True)
        ),
    ),
    Scenario(
        "softmax_over_places",
        "A softmax over the places of a sequence, not over the tags.",
        lambda: _tags(1),
        rule="output_mismatch",
        subject="tags",
        fixed=lambda: _tags(-1),
        within=11,
    ),
    Scenario(
        "sigmoid_for_progression",
        "A sigmoid is to predict numbers from 25 to 346.",
        lambda: regress(diabetes(True), "sigmoid"),
        rule="output_mismatch",
        subject="output",
        also=("saturated_units", "unscaled_target"),
        fixed=lambda: regress(diabetes(), None),
        reaches=0.4,
    ),
    Scenario(
        "tanh_for_prices",
        "A tanh is to predict numbers from 0 to 10.",
        lambda: regress(prices(0, 10), "tanh"),
        rule="output_mismatch",
        subject="output",
        also=("saturated_units",),
        fixed=lambda: regress(prices(0, 10), None),
    ),
    Scenario(
        "relu_for_signed",
        "A ReLU is to predict standardised numbers, half of them below 0.",
        lambda: regress(prices(-2, 1), "relu"),
        rule="output_mismatch",
        subject="output",
        also=("dead_units", "zero_gradient"),
        fixed=lambda: regress(prices(-2, 1), None),
    ),
)
