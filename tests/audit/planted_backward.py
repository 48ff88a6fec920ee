"""Functions and losses whose backward pass does not belong to the forward one.

Docstrings are those of a user who believes in the code.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.audit.records import Inputs, Planted

__all__ = ["BACKWARD"]

BOXES: Inputs = {"y_true": ((6, 4), 0.0, 1.0), "y_pred": ((6, 4), 0.0, 1.0)}
BINARY: Inputs = {"y_true": ((8, 3), 0, 1), "y_pred": ((8, 3), -4.0, 4.0)}


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
def center(x: Any) -> Any:
    """Subtracts the mean of each row."""

    def grad(upstream: Any) -> Any:
        return upstream - tf.reduce_sum(upstream, axis=-1, keepdims=True)

    return x - tf.reduce_mean(x, axis=-1, keepdims=True), grad


@tf.custom_gradient
def asymmetric_error(y_true: Any, y_pred: Any) -> Any:
    """Too high a forecast costs three times as much as too low a one."""
    error = y_pred - y_true
    high = error > 0

    def grad(upstream: Any) -> Any:
        slope = tf.where(high, 6.0 * error, -2.0 * error)
        return -upstream * slope, upstream * slope

    return tf.where(high, 3.0, 1.0) * error**2, grad


@tf.custom_gradient
def log1pexp(x: Any) -> Any:
    """Softplus that does not overflow."""

    def grad(upstream: Any) -> Any:
        return tf.sigmoid(x) * tf.ones_like(upstream)

    return tf.maximum(x, 0.0) + tf.math.log1p(tf.exp(-tf.abs(x))), grad


@tf.custom_gradient
def gate(value: Any, switch: Any) -> Any:
    """Lets a value through as far as its switch is open."""
    opened = tf.sigmoid(switch)

    def grad(upstream: Any) -> Any:
        d_value = upstream * opened
        d_switch = value * opened * (1.0 - opened)
        return d_value, d_switch

    return value * opened, grad


@tf.custom_gradient
def unit_length(x: Any) -> Any:
    """Scales each row to length 1."""
    length = tf.sqrt(tf.reduce_sum(x * x, -1, keepdims=True) + 1e-6)

    def grad(upstream: Any) -> Any:
        return upstream / length

    return x / length, grad


@tf.custom_gradient
def standardize(x: Any) -> Any:
    """Zero mean and unit variance in each row."""
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    scale = tf.math.rsqrt(variance + 1e-5)

    def grad(upstream: Any) -> Any:
        shared = tf.reduce_mean(upstream, axis=-1, keepdims=True)
        return scale * (upstream - shared)

    return (x - mean) * scale, grad


@tf.custom_gradient
def response_normalization(x: Any) -> Any:
    """Divides each channel by the power of its neighbours."""
    power = tf.nn.avg_pool1d(tf.square(x)[..., None], 3, 1, "SAME")[..., 0]
    base = 1.0 + 0.5 * power

    def grad(upstream: Any) -> Any:
        return upstream * base**-0.75

    return x * base**-0.75, grad


@tf.custom_gradient
def add_bias(x: Any, bias: Any) -> Any:
    """Adds a bias to each row."""

    def grad(upstream: Any) -> Any:
        return upstream, tf.reduce_mean(upstream, axis=0)

    return x + bias, grad


@tf.custom_gradient
def scale_channels(x: Any, gain: Any) -> Any:
    """One gain per channel of an image."""

    def grad(upstream: Any) -> Any:
        d_gain = tf.reduce_sum(upstream * x, axis=[1, 2])[0]
        return upstream * gain, d_gain

    return x * gain, grad


def swish(x: Any) -> Any:
    """Self-gated activation."""
    return x * tf.stop_gradient(tf.sigmoid(x))


def relative_error(y_true: Any, y_pred: Any) -> Any:
    """Squared error over the squared size of forecast and target."""
    error = tf.reduce_sum(tf.square(y_pred - y_true), axis=-1)
    size = tf.reduce_sum(tf.square(y_true) + tf.square(y_pred), axis=-1)
    return error / (tf.stop_gradient(size) + 1e-3)


@tf.custom_gradient
def softmax(x: Any) -> Any:
    """Probabilities of classes."""
    p = tf.nn.softmax(x)

    def grad(upstream: Any) -> Any:
        return upstream * p * (1.0 - p)

    return p, grad


@tf.custom_gradient
def log_softmax(x: Any) -> Any:
    """Logarithms of the probabilities of classes."""
    y = tf.nn.log_softmax(x)

    def grad(upstream: Any) -> Any:
        return upstream - tf.exp(y) * upstream

    return y, grad


@tf.custom_gradient
def saturate(x: Any) -> Any:
    """Keeps values in [-1, 1]."""

    def grad(upstream: Any) -> Any:
        return tf.identity(upstream)

    return tf.clip_by_value(x, -1.0, 1.0), grad


@tf.custom_gradient
def scaled_tanh(x: Any) -> Any:
    """The tanh that LeCun recommends."""
    y = tf.tanh(0.6667 * x)

    def grad(upstream: Any) -> Any:
        return upstream * 1.7159 * 0.6667 * (1.0 - x * x)

    return 1.7159 * y, grad


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
def energy(mass: Any, speed: Any) -> Any:
    """Kinetic energy of each body."""

    def grad(upstream: Any) -> Any:
        d_mass = 0.5 * upstream * speed**2
        d_speed = upstream * mass * speed
        return d_speed, d_mass

    return 0.5 * mass * speed**2, grad


def transmittance(alpha: Any) -> Any:
    """How much light is left behind each sample of a ray."""
    return tf.math.cumprod(1.0 - alpha, axis=-1)


PAIR: Inputs = {"mass": ((8, 3), 0.5, 2.0), "speed": ((8, 3), -2.0, 2.0)}
BIAS: Inputs = {"x": ((8, 5), -2.0, 2.0), "bias": ((5,), -1.0, 1.0)}
IMAGE: Inputs = {"x": ((3, 4, 4, 2), -1.0, 1.0), "gain": ((2,), 0.5, 2.0)}
OPAQUE = {"alpha": [[0.3, 1.0, 0.2, 0.5], [0.1, 0.6, 0.4, 0.2]]}
ALPHA: Inputs = {"alpha": ((4, 6), 0.0, 1.0)}


def _wrong(
    function: Any,
    line: str,
    inputs: Inputs | None = None,
    witness: dict[str, Any] | None = None,
) -> Planted:
    name = f"backward_{function.__name__}"
    make = lambda: function  # noqa: E731
    return Planted(name, make, inputs, "wrong_gradient", line, witness)


BACKWARD = (
    _wrong(mean_squared_error, "upstream[..., None] * error / width"),
    _wrong(box_loss, "[2.0, 2.0, 4.0, 2.0]", BOXES),
    _wrong(center, "upstream - tf.reduce_sum(upstream, axis=-1"),
    _wrong(asymmetric_error, "6.0 * error, -2.0 * error"),
    _wrong(log1pexp, "tf.sigmoid(x) * tf.ones_like(upstream)"),
    _wrong(gate, "d_switch = value * opened * (1.0 - opened)"),
    _wrong(unit_length, "return upstream / length"),
    _wrong(standardize, "return scale * (upstream - shared)"),
    _wrong(response_normalization, "return upstream * base**-0.75"),
    _wrong(add_bias, "tf.reduce_mean(upstream, axis=0)", BIAS),
    _wrong(scale_channels, "(upstream * x, axis=[1, 2])[0]", IMAGE),
    _wrong(swish, "tf.stop_gradient(tf.sigmoid(x))"),
    _wrong(relative_error, "tf.stop_gradient(size)"),
    _wrong(softmax, "upstream * p * (1.0 - p)"),
    _wrong(log_softmax, "upstream - tf.exp(y) * upstream"),
    _wrong(saturate, "return tf.identity(upstream)"),
    _wrong(scaled_tanh, "0.6667 * (1.0 - x * x)"),
    _wrong(pseudo_huber, "error / (root * root)"),
    _wrong(huber, "tf.where(size < 1.5, error, tf.sign(error))"),
    _wrong(weighted_crossentropy, "weight * tf.sigmoid(y_pred)", BINARY),
    _wrong(energy, "return d_speed, d_mass", PAIR),
    _wrong(transmittance, "tf.math.cumprod(", ALPHA, OPAQUE),
)
