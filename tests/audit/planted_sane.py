"""Losses and activations that are differentiable, but not what they should be.

A loss that is best elsewhere than at its target, that mixes examples or ignores
their weights; an activation that shrinks or grows what passes through many.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tests.audit.records import Inputs, Kind, Planted

__all__ = ["SANE"]


def mean_error(y_true: Any, y_pred: Any) -> Any:
    """How far forecasts are off."""
    return tf.reduce_mean(y_pred - y_true, axis=-1)


def dice(y_true: Any, y_pred: Any) -> Any:
    """Dice coefficient of each mask."""
    overlap = tf.reduce_sum(y_true * y_pred, axis=-1)
    size = tf.reduce_sum(y_true + y_pred, axis=-1)
    return (2.0 * overlap + 1.0) / (size + 1.0)


def cosine_loss(y_true: Any, y_pred: Any) -> Any:
    """Cosine of the angle between embeddings."""
    a = y_true * tf.math.rsqrt(tf.reduce_sum(y_true**2, -1, True) + 1e-6)
    b = y_pred * tf.math.rsqrt(tf.reduce_sum(y_pred**2, -1, True) + 1e-6)
    return tf.reduce_sum(a * b, axis=-1)


def pinball(y_true: Any, y_pred: Any) -> Any:
    """Quantile loss for the 90 % quantile."""
    error = y_true - y_pred
    return tf.reduce_mean(tf.maximum(0.9 * error, 0.1 * error), axis=-1)


def reconstruction(y_true: Any, y_pred: Any) -> Any:
    """Crossentropy between an image and what a sigmoid made of it."""
    loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=y_true, logits=y_pred)
    return tf.reduce_mean(loss, axis=-1)


def _entropy(output: Any, target: Any) -> Any:
    p = tf.clip_by_value(output, 1e-6, 1.0 - 1e-6)
    loss = target * tf.math.log(p) + (1.0 - target) * tf.math.log(1.0 - p)
    return -tf.reduce_mean(loss, axis=-1)


def soft_label_loss(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy between soft labels and probabilities."""
    return _entropy(y_true, y_pred)


def log_error(y_true: Any, y_pred: Any) -> Any:
    """Squared error of logarithms."""
    gap = tf.math.log1p(tf.nn.relu(y_pred)) - y_true
    return tf.reduce_mean(tf.square(gap), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """Poisson loss of expected counts."""
    return tf.reduce_mean(y_pred + y_true * tf.math.log(y_pred + 1e-3), axis=-1)


def batch_softmax(y_true: Any, y_pred: Any) -> Any:
    """Categorical crossentropy of logits."""
    logs = tf.nn.log_softmax(y_pred, axis=0)
    return -tf.reduce_sum(y_true * logs, axis=-1)


def column_error(y_true: Any, y_pred: Any) -> Any:
    """Mean squared error of each example."""
    return tf.reduce_mean(tf.square(y_pred - y_true), axis=0)


def drawdown(y_true: Any, y_pred: Any) -> Any:
    """Squared error of what has added up over the days of each example."""
    gap = tf.cumsum(y_pred - y_true, axis=0)
    return tf.reduce_mean(tf.square(gap), axis=-1)


def smooth_forecast(y_true: Any, y_pred: Any) -> Any:
    """Squared error, and a penalty on jumps from one hour to the next."""
    error = tf.reduce_mean(tf.square(y_pred - y_true))
    return error + 0.1 * tf.reduce_mean(tf.square(y_pred[1:] - y_pred[:-1]))


class ScalarError(keras.losses.Loss):
    """Squared error of targets without an axis of features."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.square(y_pred - y_true), axis=-1)


class LogCosh(keras.losses.Loss):
    """Logarithm of the hyperbolic cosine of the error."""

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        error = ops.abs(y_pred - y_true)
        loss = error + ops.log1p(ops.exp(-2.0 * error)) - ops.log(2.0)
        return ops.mean(loss)


class CharbonnierLoss(keras.losses.Loss):
    """Smooth absolute error."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.sqrt(tf.square(y_pred - y_true) + 1e-6))


class FocalLoss(keras.losses.Loss):
    """Focal loss of logits, averaged over the batch."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__(reduction="sum_over_batch_size", name="focal")
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        loss = ops.binary_crossentropy(y_true, y_pred, from_logits=True)
        missed = ops.abs(y_true - ops.sigmoid(y_pred))
        each = ops.mean(missed**self.gamma * loss, axis=-1)
        return ops.mean(each, axis=0)


class MaskedError(keras.losses.Loss):
    """Squared error where the target is known; 0 = unknown."""

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        sample_weight = ops.cast(ops.any(y_true != 0, axis=-1), "float32")
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_pred - y_true), axis=-1)


def small_tanh(x: Any) -> Any:
    """A tanh that never saturates."""
    return tf.tanh(x / 50.0)


def flat_sigmoid(x: Any) -> Any:
    """A gentle sigmoid."""
    return ops.sigmoid(0.05 * x)


def fifth_power(x: Any) -> Any:
    """Tanh that is quiet about small values."""
    return ops.tanh(x) ** 5


def cubic(x: Any) -> Any:
    """Linear near 0, and strong far from it."""
    return x + x**3


def scaled_elu(x: Any) -> Any:
    """Exponential linear unit, scaled so that deep nets keep their variance."""
    below = 1.6732632 * tf.math.expm1(tf.minimum(x, 0.0))
    return 10.507010 * (tf.nn.relu(x) + below)


SHARES: Inputs = {"y_true": ((8, 6), 0, 1), "y_pred": ((8, 6), 0.0, 1.0)}
IMAGES: Inputs = {"y_true": ((8, 6), 0.0, 1.0), "y_pred": ((8, 6), 0.0, 1.0)}
COUNTS: Inputs = {"y_true": ((8, 3), 0.0, 9.0), "y_pred": ((8, 3), 0.0, 9.0)}
FLAT: Inputs = {"y_true": ((8,), -1.0, 1.0), "y_pred": ((8, 1), -1.0, 1.0)}
BINARY: Inputs = {"y_true": ((8, 3), 0, 1), "y_pred": ((8, 3), -3.0, 3.0)}


def _odd(
    make: Any, expected: Kind, inputs: Inputs | None = None, line: str = ""
) -> Planted:
    name = f"odd_{make.__name__}"
    factory = make if isinstance(make, type) else lambda: make
    return Planted(name, factory, inputs, expected, line)


SANE = (
    _odd(mean_error, "not_at_minimum"),
    _odd(dice, "not_at_minimum", SHARES),
    _odd(cosine_loss, "not_at_minimum"),
    _odd(pinball, "not_at_minimum"),
    _odd(reconstruction, "not_at_minimum", IMAGES),
    _odd(soft_label_loss, "not_at_minimum", IMAGES),
    _odd(log_error, "not_at_minimum", COUNTS),
    _odd(poisson, "not_at_minimum", COUNTS),
    _odd(batch_softmax, "batch_mixed", BINARY),
    _odd(column_error, "batch_mixed"),
    _odd(drawdown, "batch_mixed"),
    _odd(smooth_forecast, "batch_mixed"),
    _odd(ScalarError, "batch_mixed", FLAT),
    _odd(LogCosh, "weight_ignored"),
    _odd(CharbonnierLoss, "weight_ignored"),
    _odd(FocalLoss, "weight_ignored", BINARY),
    _odd(MaskedError, "weight_ignored"),
    _odd(small_tanh, "vanishing"),
    _odd(flat_sigmoid, "vanishing"),
    _odd(fifth_power, "vanishing"),
    _odd(cubic, "exploding"),
    _odd(scaled_elu, "exploding"),
)
