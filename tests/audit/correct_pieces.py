"""Correct code that is not smooth: losses and activations made of pieces."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.audit.records import Correct, Inputs

__all__ = ["PIECES"]


def huber(y_true: Any, y_pred: Any) -> Any:
    """Huber's loss with a delta of 1.5."""
    error = y_pred - y_true
    size = tf.abs(error)
    loss = tf.where(size < 1.5, 0.5 * error * error, 1.5 * size - 1.125)
    return tf.reduce_mean(loss, axis=-1)


@tf.custom_gradient
def manual_huber(y_true: Any, y_pred: Any) -> Any:
    """Huber's loss with its slope written out."""
    error = y_pred - y_true
    near = tf.abs(error) < 1.0
    loss = tf.where(near, 0.5 * error * error, tf.abs(error) - 0.5)

    def grad(upstream: Any) -> Any:
        slope = tf.where(near, error, tf.sign(error))
        return -upstream * slope, upstream * slope

    return loss, grad


def hinge(y_true: Any, y_pred: Any) -> Any:
    """Hinge loss of labels 0 and 1."""
    sign = 2.0 * y_true - 1.0
    return tf.reduce_mean(tf.maximum(1.0 - sign * y_pred, 0.0), axis=-1)


def make_pinball(quantile: float) -> Any:
    """Returns the loss whose optimum is a quantile."""

    def pinball(y_true: Any, y_pred: Any) -> Any:
        error = y_true - y_pred
        cost = ops.maximum(quantile * error, (quantile - 1.0) * error)
        return ops.mean(cost, axis=-1)

    return pinball


def tube_error(y_true: Any, y_pred: Any) -> Any:
    """Absolute error beyond a tolerance of 0.1."""
    beyond = tf.nn.relu(tf.abs(y_pred - y_true) - 0.1)
    return tf.reduce_mean(beyond, axis=-1)


def wing_loss(y_true: Any, y_pred: Any) -> Any:
    """Logarithmic near the target, linear far from it: for landmarks."""
    size = tf.abs(y_true - y_pred)
    width, bend = 2.0, 0.5
    offset = width - width * tf.math.log(1.0 + width / bend)
    near = width * tf.math.log(1.0 + size / bend)
    return tf.reduce_mean(tf.where(size < width, near, size - offset), -1)


def asymmetric_error(y_true: Any, y_pred: Any) -> Any:
    """Too high a forecast costs three times as much as too low a one."""
    error = y_pred - y_true
    return tf.where(error > 0, 3.0, 1.0) * tf.square(error)


def absolute_error(y_true: Any, y_pred: Any) -> Any:
    """Mean absolute error."""
    return tf.reduce_mean(tf.abs(y_pred - y_true))


def triplet_loss(anchor: Any, positive: Any, negative: Any) -> Any:
    """The negative is to be farther away than the positive, by a margin."""
    near = tf.reduce_sum(tf.square(anchor - positive), axis=-1)
    far = tf.reduce_sum(tf.square(anchor - negative), axis=-1)
    return tf.maximum(near - far + 0.5, 0.0)


def contrastive_loss(y_true: Any, y_pred: Any) -> Any:
    """Distances: small where the label is 1, beyond a margin where it is 0."""
    apart = tf.square(tf.maximum(1.0 - y_pred, 0.0))
    return tf.reduce_mean(y_true * y_pred**2 + (1.0 - y_true) * apart, -1)


def clipped_surrogate(advantage: Any, ratio: Any) -> Any:
    """PPO's objective, negated."""
    clipped = tf.clip_by_value(ratio, 0.8, 1.2)
    return -tf.minimum(ratio * advantage, clipped * advantage)


def leaky_relu(x: Any) -> Any:
    """ReLU that lets a fifth of the negative side through."""
    return ops.where(x > 0, x, 0.2 * x)


def plain_relu(x: Any) -> Any:
    """ReLU by hand."""
    return tf.maximum(x, 0.0)


def masked_relu(x: Any) -> Any:
    """ReLU as a product with a mask."""
    return x * tf.cast(x > 0.0, tf.float32)


def relu6(x: Any) -> Any:
    """ReLU up to 6."""
    return tf.minimum(tf.maximum(x, 0.0), 6.0)


def hard_sigmoid(x: Any) -> Any:
    """Sigmoid of three lines."""
    return ops.clip(x / 6.0 + 0.5, 0.0, 1.0)


def hard_swish(x: Any) -> Any:
    """Swish of pieces."""
    return x * tf.nn.relu6(x + 3.0) / 6.0


def hard_tanh(x: Any) -> Any:
    """Keeps values in [-1, 1]."""
    return tf.clip_by_value(x, -1.0, 1.0)


@tf.custom_gradient
def saturate(x: Any) -> Any:
    """Keeps values in [-1, 1], with a backward pass of its own."""
    inside = tf.cast(tf.abs(x) <= 1.0, x.dtype)

    def grad(upstream: Any) -> Any:
        return upstream * inside

    return tf.clip_by_value(x, -1.0, 1.0), grad


def soft_threshold(x: Any) -> Any:
    """Shrinks towards 0 by 0.02: the proximal step of L1."""
    return tf.sign(x) * tf.nn.relu(tf.abs(x) - 0.02)


def elu(x: Any) -> Any:
    """Exponential linear unit whose exponential never overflows."""
    return tf.where(x > 0.0, x, tf.math.expm1(tf.minimum(x, 0.0)))


def selu(x: Any) -> Any:
    """Scaled exponential linear unit."""
    below = 1.6732632 * (ops.exp(ops.minimum(x, 0.0)) - 1.0)
    return 1.0507010 * (ops.maximum(x, 0.0) + below)


def maxout(x: Any) -> Any:
    """Larger of the two halves of the features."""
    first, second = tf.split(x, 2, axis=-1)
    return tf.maximum(first, second)


def box_iou_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - IoU of boxes (left, top, width, height)."""
    end_true, end_pred = (b[:, :2] + b[:, 2:] for b in (y_true, y_pred))
    start = tf.maximum(y_true[:, :2], y_pred[:, :2])
    sides = tf.nn.relu(tf.minimum(end_true, end_pred) - start)
    both = sides[:, 0] * sides[:, 1]
    areas = y_true[:, 2] * y_true[:, 3] + y_pred[:, 2] * y_pred[:, 3]
    return 1.0 - both / (areas - both)


class Prelu(layers.Layer):
    """ReLU that learns the slope of its negative side."""

    def build(self, input_shape: Any) -> None:
        start = keras.initializers.Constant(0.25)
        shape = (input_shape[-1],)
        self.slope = self.add_weight(shape=shape, initializer=start)

    def call(self, x: Any) -> Any:
        return ops.relu(x) - self.slope * ops.relu(-x)


LABELS: Inputs = {"y_true": ((8, 3), 0, 1), "y_pred": ((8, 3), -2.0, 2.0)}
APART: Inputs = {"y_true": ((8, 1), 0, 1), "y_pred": ((8, 1), 0.0, 2.0)}
RATIO: Inputs = {"advantage": ((8,), -2.0, 2.0), "ratio": ((8,), 0.5, 1.5)}
HALVES: Inputs = {"x": ((8, 6), -2.0, 2.0)}
BOXES: Inputs = {"y_true": ((8, 4), 0.3, 1.0), "y_pred": ((8, 4), 0.3, 1.0)}


def _fine(function: Any, inputs: Inputs | None = None) -> Correct:
    name = f"pieces_{function.__name__}"
    make = function if isinstance(function, type) else lambda: function
    return Correct(name, make, inputs)


PIECES = (
    _fine(huber),
    _fine(manual_huber),
    _fine(hinge, LABELS),
    _fine(make_pinball(0.9)),
    _fine(tube_error),
    _fine(wing_loss),
    _fine(asymmetric_error),
    _fine(absolute_error),
    _fine(triplet_loss),
    _fine(contrastive_loss, APART),
    _fine(clipped_surrogate, RATIO),
    _fine(leaky_relu),
    _fine(plain_relu),
    _fine(masked_relu),
    _fine(relu6),
    _fine(hard_sigmoid),
    _fine(hard_swish),
    _fine(hard_tanh),
    _fine(saturate),
    _fine(soft_threshold),
    _fine(elu),
    _fine(selu),
    _fine(maxout, HALVES),
    _fine(box_iou_loss, BOXES),
    _fine(Prelu),
)
