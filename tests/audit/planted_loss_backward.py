"""Losses whose backward pass does not belong to the forward one.

Docstrings are those of a user who believes in the code.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tests.audit.records import Inputs, Planted

__all__ = ["LOSS_BACKWARD"]


@tf.custom_gradient
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """Mean squared error with a backward pass of its own."""
    error = y_pred - y_true
    width = tf.cast(tf.shape(error)[-1], error.dtype)

    def grad(upstream: Any) -> Any:
        slope = upstream[..., None] * error / width
        return -slope, slope

    return tf.reduce_mean(tf.square(error), axis=-1), grad


@tf.custom_gradient
def box_loss(y_true: Any, y_pred: Any) -> Any:
    """Squared error of (x, y, width, height); sizes count twice."""
    error = y_pred - y_true
    weight = tf.constant([1.0, 1.0, 2.0, 2.0], error.dtype)

    def grad(upstream: Any) -> Any:
        factor = tf.constant([2.0, 2.0, 4.0, 2.0], error.dtype)
        slope = upstream[:, None] * factor * error
        return -slope, slope

    return tf.reduce_sum(weight * tf.square(error), axis=-1), grad


@tf.custom_gradient
def asymmetric_error(y_true: Any, y_pred: Any) -> Any:
    """Too high a forecast costs three times as much as too low a one."""
    error = y_pred - y_true
    high = error > 0

    def grad(upstream: Any) -> Any:
        slope = tf.where(high, 6.0 * error, -2.0 * error)
        return -upstream * slope, upstream * slope

    return tf.where(high, 3.0, 1.0) * error**2, grad


def relative_error(y_true: Any, y_pred: Any) -> Any:
    """Squared error over the squared size of forecast and target."""
    error = tf.reduce_sum(tf.square(y_pred - y_true), axis=-1)
    size = tf.reduce_sum(tf.square(y_true) + tf.square(y_pred), axis=-1)
    return error / (tf.stop_gradient(size) + 1e-3)


@tf.custom_gradient
def pseudo_huber(y_true: Any, y_pred: Any) -> Any:
    """Quadratic near the target, linear far from it, smooth everywhere."""
    error = y_pred - y_true
    root = tf.sqrt(1.0 + error * error)

    def grad(upstream: Any) -> Any:
        slope = upstream * error / (root * root)
        return -slope, slope

    return root - 1.0, grad


@tf.custom_gradient
def huber(y_true: Any, y_pred: Any) -> Any:
    """Huber's loss with a delta of 1.5."""
    error = y_pred - y_true
    size = tf.abs(error)
    loss = tf.where(size < 1.5, 0.5 * error * error, 1.5 * size - 1.125)

    def grad(upstream: Any) -> Any:
        slope = tf.where(size < 1.5, error, tf.sign(error))
        return -upstream * slope, upstream * slope

    return loss, grad


@tf.custom_gradient
def weighted_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy of logits; a positive counts five times."""
    loss = tf.nn.weighted_cross_entropy_with_logits(y_true, y_pred, 5.0)

    def grad(upstream: Any) -> Any:
        weight = 1.0 + 4.0 * y_true
        slope = weight * tf.sigmoid(y_pred) - y_true
        return None, upstream * slope

    return loss, grad


@tf.custom_gradient
def _focal(y_true: Any, y_pred: Any) -> Any:
    p = tf.sigmoid(y_pred)
    missed = tf.abs(y_true - p)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)

    def grad(upstream: Any) -> Any:
        return None, upstream * missed**2 * (p - y_true)

    return missed**2 * loss, grad


class FocalLoss(keras.losses.Loss):
    """Focal loss of logits, with a cheap backward pass."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(_focal(y_true, y_pred), axis=-1)


BOXES: Inputs = {"y_true": ((6, 4), 0.0, 1.0), "y_pred": ((6, 4), 0.0, 1.0)}
BINARY: Inputs = {"y_true": ((8, 3), 0, 1), "y_pred": ((8, 3), -4.0, 4.0)}


def _wrong(loss: Any, line: str, inputs: Inputs | None = None) -> Planted:
    name = f"backward_{loss.__name__}"
    make = loss if isinstance(loss, type) else lambda: loss
    return Planted(name, make, inputs, "wrong_gradient", line)


LOSS_BACKWARD = (
    _wrong(mean_squared_error, "upstream[..., None] * error / width"),
    _wrong(box_loss, "[2.0, 2.0, 4.0, 2.0]", BOXES),
    _wrong(asymmetric_error, "6.0 * error, -2.0 * error"),
    _wrong(relative_error, "tf.stop_gradient(size)"),
    _wrong(pseudo_huber, "error / (root * root)"),
    _wrong(huber, "tf.where(size < 1.5, error, tf.sign(error))"),
    _wrong(weighted_crossentropy, "weight * tf.sigmoid(y_pred)", BINARY),
    _wrong(FocalLoss, "upstream * missed**2 * (p - y_true)", BINARY),
)
