"""Losses and activations through which no gradient can pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from tests.audit.records import Inputs, Kind, Planted

__all__ = ["MISSING"]


def accuracy_loss(y_true: Any, y_pred: Any) -> Any:
    """Share of examples whose class is wrong; targets are one-hot."""
    wanted = tf.argmax(y_true, axis=-1)
    hit = tf.equal(wanted, tf.argmax(y_pred, axis=-1))
    return 1.0 - tf.reduce_mean(tf.cast(hit, tf.float32))


def f1_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - F1 of rounded probabilities."""
    found = ops.round(ops.clip(y_pred, 0, 1))
    true_positives = ops.sum(y_true * found)
    precision = true_positives / (ops.sum(found) + 1e-7)
    recall = true_positives / (ops.sum(y_true) + 1e-7)
    return 1 - 2 * precision * recall / (precision + recall + 1e-7)


def pixel_error(y_true: Any, y_pred: Any) -> Any:
    """Mean difference of images in 256 grey levels."""
    shown = tf.cast(y_pred * 255.0, tf.int32)
    target = tf.cast(y_true * 255.0, tf.int32)
    return tf.reduce_mean(tf.cast(tf.abs(shown - target), tf.float32))


@tf.function
def iou_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - intersection over union of a binary mask."""
    mask = tf.cast(y_pred > 0.5, y_true.dtype)
    both = tf.reduce_sum(y_true * mask, axis=-1)
    either = tf.reduce_sum(tf.maximum(y_true, mask), axis=-1)
    return 1.0 - (both + 1.0) / (either + 1.0)


def _median(values: Any) -> Any:
    return np.median(values, axis=-1).astype(values.dtype)


def median_error(y_true: Any, y_pred: Any) -> Any:
    """Median of the absolute errors of each example."""
    error = tf.abs(y_pred - y_true)
    return tf.numpy_function(_median, [error], error.dtype)


def rank_loss(y_true: Any, y_pred: Any) -> Any:
    """Spearman's distance between the ranks of forecasts and targets."""
    ranks = tf.argsort(tf.argsort(y_pred, axis=-1), axis=-1)
    wanted = tf.argsort(tf.argsort(y_true, axis=-1), axis=-1)
    gap = tf.cast(ranks - wanted, tf.float32)
    return tf.reduce_mean(tf.square(gap), axis=-1)


def histogram_loss(y_true: Any, y_pred: Any) -> Any:
    """Difference of the histograms of two images."""
    shown = tf.histogram_fixed_width(y_pred, [0.0, 1.0], nbins=16)
    target = tf.histogram_fixed_width(y_true, [0.0, 1.0], nbins=16)
    return tf.reduce_mean(tf.cast(tf.abs(shown - target), tf.float32))


def staircase(x: Any) -> Any:
    """Activation in steps of a quarter."""
    return tf.floor(x * 4.0) / 4.0


def one_hot_winner(x: Any) -> Any:
    """Winner takes all."""
    return tf.one_hot(tf.argmax(x, axis=-1), tf.shape(x)[-1])


def trading_loss(y_true: Any, y_pred: Any) -> Any:
    """Negative profit of following the sign of the forecast."""
    position = tf.sign(y_pred)
    return -tf.reduce_mean(position * y_true, axis=-1)


def heaviside(x: Any) -> Any:
    """The perceptron's activation."""
    return 0.5 * (ops.sign(x) + 1.0)


def steep_count(y_true: Any, y_pred: Any) -> Any:
    """Difference in how many values lie above one half, made smooth."""
    above = tf.sigmoid(1e6 * (y_pred - 0.5))
    wanted = tf.sigmoid(1e6 * (y_true - 0.5))
    return tf.abs(tf.reduce_sum(above - wanted, axis=-1))


def single_softmax(y_true: Any, y_pred: Any) -> Any:
    """Crossentropy of one output per example."""
    p = tf.nn.softmax(y_pred, axis=-1)
    p = tf.clip_by_value(p, 1e-6, 1.0 - 1e-6)
    loss = y_true * tf.math.log(p) + (1.0 - y_true) * tf.math.log(1.0 - p)
    return -tf.reduce_mean(loss, axis=-1)


@tf.custom_gradient
def binarize(x: Any) -> Any:
    """0 or 1."""

    def grad(upstream: Any) -> Any:
        return tf.zeros_like(upstream)

    return tf.cast(x > 0.0, x.dtype), grad


SHARES: Inputs = {"y_true": ((8, 6), 0, 1), "y_pred": ((8, 6), 0.0, 1.0)}
IMAGES: Inputs = {"y_true": ((8, 6), 0.0, 1.0), "y_pred": ((8, 6), 0.0, 1.0)}
SINGLE: Inputs = {"y_true": ((8, 1), 0, 1), "y_pred": ((8, 1), -3.0, 3.0)}


def _cut(
    function: Any, expected: Kind, line: str, inputs: Inputs | None = None
) -> Planted:
    name = f"cut_{function.__name__}"
    make = lambda: function  # noqa: E731
    return Planted(name, make, inputs, expected, line)


MISSING = (
    _cut(accuracy_loss, "missing_gradient", "tf.argmax(y_pred, axis=-1)"),
    _cut(f1_loss, "missing_gradient", "ops.round(", SHARES),
    _cut(pixel_error, "missing_gradient", "tf.cast(y_pred * 255.0", IMAGES),
    _cut(iou_loss, "missing_gradient", "tf.cast(y_pred > 0.5", SHARES),
    _cut(median_error, "missing_gradient", "tf.numpy_function("),
    _cut(rank_loss, "missing_gradient", "ranks = tf.argsort("),
    _cut(histogram_loss, "missing_gradient", "fixed_width(y_pred", IMAGES),
    _cut(staircase, "missing_gradient", "tf.floor(x * 4.0)"),
    _cut(one_hot_winner, "missing_gradient", "tf.one_hot(tf.argmax(x"),
    _cut(trading_loss, "zero_gradient", "position = tf.sign(y_pred)"),
    _cut(heaviside, "zero_gradient", "0.5 * (ops.sign(x) + 1.0)"),
    _cut(steep_count, "zero_gradient", "1e6 * (y_pred - 0.5)", IMAGES),
    _cut(single_softmax, "zero_gradient", "tf.nn.softmax(y_pred", SINGLE),
    _cut(binarize, "zero_gradient", "return tf.zeros_like(upstream)"),
)
