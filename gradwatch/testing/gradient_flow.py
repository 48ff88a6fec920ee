"""Programs whose gradient is missing or exactly zero."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    circles,
    counts,
    houses,
    scaled,
    wine,
)
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    classify_tumours,
    dense_net,
    explained,
    fits,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _error_rate(y_true: Any, y_pred: Any) -> Any:
    """One minus the accuracy, as a loss."""
    truth = ops.cast(ops.reshape(y_true, (-1,)), "int32")
    said = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
    return 1.0 - ops.cast(ops.equal(truth, said), "float32")


def _f1(said: Any) -> Any:
    """One minus the F1 score of a batch, of answers made from predictions."""

    def f1_loss(y_true: Any, y_pred: Any) -> Any:
        answer = said(y_pred)
        both = 2 * ops.sum(y_true * answer)
        return 1.0 - both / (ops.sum(y_true) + ops.sum(answer) + 1e-7)

    return f1_loss


def _hits(sign: Any) -> Any:
    """The share of labels -1 and 1 whose sign is wrong."""

    def miss_loss(y_true: Any, y_pred: Any) -> Any:
        return 0.5 - 0.5 * ops.mean((2 * y_true - 1) * sign(y_pred), -1)

    return miss_loss


def _whole_counts(whole: bool) -> Program:
    """Counts must be whole numbers, so predictions are cast to them."""

    def squared(y_true: Any, y_pred: Any) -> Any:
        if whole:
            y_pred = ops.cast(ops.cast(y_pred, "int32"), "float32")
        return ops.mean(ops.square(y_true - y_pred), -1)

    model = dense_net(5, [32], 1)
    return fits(model, counts(), explained(counts()), loss=squared, epochs=8)


def _step_neurons(activation: Any) -> Program:
    """Circles with hidden neurons that fire or do not."""
    model = dense_net(2, [6], 1, activation=activation, last="sigmoid")
    options: Any = {"loss": "binary_crossentropy", "epochs": 15}
    adam = Adam(0.05)
    return fits(
        model, circles(), accuracy(circles()), optimizer=adam, **options
    )


def _fires(x: Any) -> Any:
    return ops.where(x > 0, 1.0, 0.0)


def _stopped_encoder(stop: bool) -> Program:
    """A narrow encoder in front of a head; its features are detached."""
    image = keras.Input((64,))
    code = layers.Dense(32, "relu", name="encoder_1")(image)
    code = layers.Dense(3, "tanh", name="encoder_2")(code)
    if stop:
        code = layers.Lambda(ops.stop_gradient, name="detach")(code)
    classes = layers.Dense(10, "softmax", name="head")(code)
    return classify_digits(keras.Model(image, classes), epochs=12)


class _Towers(keras.Model):
    """Chemistry and colour of a wine each have a tower of their own."""

    def __init__(self, both: bool) -> None:
        super().__init__(name="towers")
        self.both = both
        self.chemistry = layers.Dense(8, "relu", name="chemistry")
        self.colour = layers.Dense(8, "relu", name="colour")
        self.head = layers.Dense(3, name="head")

    def call(self, inputs: Any) -> Any:
        """Returns logits of three cultivars."""
        first = self.chemistry(inputs[:, :3])
        second = self.colour(inputs[:, 3:])
        second = second if self.both else first
        return self.head(ops.concatenate([first, second], -1))


def _towers(both: bool) -> Program:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    judge, adam = accuracy(wine()), Adam(0.01)
    return fits(_Towers(both), wine(), judge, loss=loss, optimizer=adam)


def _clipped(clip: bool) -> Program:
    """Shares in [0, 1], clipped to be safe; at first all are above it."""
    x, y = houses()
    data = Data(scaled(x), (y - y.min()) / (y.max() - y.min()))
    start = keras.initializers.Constant(5.0)
    model = dense_net(4, [16], 1, head={"bias_initializer": start})
    if clip:
        model.add(layers.Lambda(lambda share: ops.clip(share, 0.0, 1.0)))
    adam = Adam(0.02)
    return fits(model, data, explained(data), loss="mse", optimizer=adam)


def _small_loss(scaling: bool) -> Program:
    """Half precision, and a loss that is divided by the size of the data."""
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = dense_net(64, [64, 64], 10, dtype=policy)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(y_true: Any, y_pred: Any) -> Any:
        return entropy(y_true, ops.cast(y_pred, "float32")) / (1797 * 64 * 100)

    adam = Adam(0.003, epsilon=1e-12)
    if scaling:
        adam = keras.optimizers.LossScaleOptimizer(adam, 2.0**26)
    return classify_digits(
        model, adam, loss=loss, compiled={"auto_scale_loss": False}
    )


def _weighted(kind: str) -> Program:
    """Digits with sample weights from 0.2 to 0.99, cast to a type."""
    weights = np.random.default_rng(0).uniform(0.2, 0.99, 1797).astype(kind)
    model = dense_net(64, [48], 10, last="softmax")
    return classify_digits(model, sample_weight=weights)


FAULTY = (
    Scenario(
        "accuracy_as_loss",
        "One minus the accuracy, by argmax and comparison, as a loss.",
        lambda: classify_digits(
            dense_net(64, [64], 10, last="softmax"), loss=_error_rate
        ),
        rule="missing_gradient",
        severity="critical",
        subject="hidden_1",
        fixed=lambda: classify_digits(dense_net(64, [64], 10, last="softmax")),
        within=1,
        raises="No gradients provided",
    ),
    Scenario(
        "f1_of_rounded",
        "An F1 score of rounded predictions as a loss.",
        lambda: classify_tumours("sigmoid", _f1(ops.round), epochs=12),
        rule="missing_gradient",
        severity="critical",
        subject="hidden_1",
        fixed=lambda: classify_tumours(
            "sigmoid", _f1(lambda y_pred: y_pred), epochs=12
        ),
        within=1,
        raises="No gradients provided",
    ),
    Scenario(
        "counts_cast_to_integers",
        "Predicted counts are cast to integers inside of the loss.",
        lambda: _whole_counts(True),
        rule="missing_gradient",
        severity="critical",
        subject="hidden_1",
        fixed=lambda: _whole_counts(False),
        within=1,
        reaches=0.25,
        raises="No gradients provided",
    ),
    Scenario(
        "step_neurons",
        "Hidden neurons fire or do not, by a comparison.",
        lambda: _step_neurons(_fires),
        rule="missing_gradient",
        subject="hidden_1",
        fixed=lambda: _step_neurons("sigmoid"),
        within=1,
        costs=0.15,
    ),
    Scenario(
        "detached_encoder",
        "A stop_gradient between encoder and head, meant for another loss.",
        lambda: _stopped_encoder(True),
        rule="missing_gradient",
        subject="encoder_1",
        fixed=lambda: _stopped_encoder(False),
        within=1,
        costs=0.15,
    ),
    Scenario(
        "forgotten_tower",
        "A tower is called, but its output goes nowhere by a slip.",
        lambda: _towers(False),
        rule="missing_gradient",
        subject="towers/colour",
        fixed=lambda: _towers(True),
        within=1,
    ),
    Scenario(
        "sign_as_loss",
        "The share of wrong signs as a loss: its derivative is 0 everywhere.",
        lambda: classify_tumours(None, _hits(ops.sign), epochs=12),
        rule="zero_gradient",
        also=("stalled_loss",),
        fixed=lambda: classify_tumours(None, _hits(ops.tanh), epochs=12),
    ),
    Scenario(
        "weights_cast_to_integers",
        "Sample weights below 1, cast to integers: no example counts.",
        lambda: _weighted("int32"),
        rule="zero_gradient",
        fixed=lambda: _weighted("float32"),
        within=64,
    ),
    Scenario(
        "clipped_predictions",
        "Outputs are clipped to [0, 1] and all begin above it.",
        lambda: _clipped(True),
        rule="zero_gradient",
        also=("constant_output", "stalled_loss"),
        fixed=lambda: _clipped(False),
    ),
    Scenario(
        "float16_underflow",
        "Gradients too small for float16, and no loss scaling.",
        lambda: _small_loss(False),
        rule="zero_gradient",
        subject="hidden_",
        also=("stalled_loss",),
        fixed=lambda: _small_loss(True),
    ),
)
