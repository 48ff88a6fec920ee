"""Functions whose backward pass does not belong to the forward one.

Docstrings are those of a user who believes in the code.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from tests.audit.records import Inputs, Planted

__all__ = ["BACKWARD"]


@tf.custom_gradient
def center(x: Any) -> Any:
    """Subtracts the mean of each row."""

    def grad(upstream: Any) -> Any:
        return upstream - tf.reduce_sum(upstream, axis=-1, keepdims=True)

    return x - tf.reduce_mean(x, axis=-1, keepdims=True), grad


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


@ops.custom_gradient
def scaled_tanh(x: Any) -> Any:
    """The tanh that LeCun recommends."""
    y = ops.tanh(0.6667 * x)

    def grad(*args: Any, upstream: Any = None) -> Any:
        if upstream is None:
            (upstream,) = args
        return upstream * 1.7159 * 0.6667 * (1.0 - x * x)

    return 1.7159 * y, grad


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


@tf.custom_gradient
def relu6(x: Any) -> Any:
    """ReLU up to 6."""

    def grad(upstream: Any) -> Any:
        return tf.where(x > 0.0, upstream, 0.0)

    return tf.clip_by_value(x, 0.0, 6.0), grad


@tf.custom_gradient
def mean_and_deviation(x: Any) -> Any:
    """Mean and standard deviation of each row."""
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)

    def grad(d_mean: Any, d_deviation: Any) -> Any:
        return d_mean * tf.ones_like(x) / tf.cast(tf.shape(x)[-1], x.dtype)

    return (mean, tf.sqrt(variance + 1e-4)), grad


PAIR: Inputs = {"mass": ((8, 3), 0.5, 2.0), "speed": ((8, 3), -2.0, 2.0)}
BIAS: Inputs = {"x": ((8, 5), -2.0, 2.0), "bias": ((5,), -1.0, 1.0)}
IMAGE: Inputs = {"x": ((3, 4, 4, 2), -1.0, 1.0), "gain": ((2,), 0.5, 2.0)}
OPAQUE = {"alpha": [[0.3, 1.0, 0.2, 0.5], [0.1, 0.6, 0.4, 0.2]]}
HIGH = {"x": [[-1.0, 2.0, 7.0, 9.0], [8.0, 3.0, -2.0, 6.5]]}
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
    _wrong(center, "upstream - tf.reduce_sum(upstream, axis=-1"),
    _wrong(log1pexp, "tf.sigmoid(x) * tf.ones_like(upstream)"),
    _wrong(gate, "d_switch = value * opened * (1.0 - opened)"),
    _wrong(unit_length, "return upstream / length"),
    _wrong(standardize, "return scale * (upstream - shared)"),
    _wrong(response_normalization, "return upstream * base**-0.75"),
    _wrong(add_bias, "tf.reduce_mean(upstream, axis=0)", BIAS),
    _wrong(scale_channels, "(upstream * x, axis=[1, 2])[0]", IMAGE),
    _wrong(swish, "tf.stop_gradient(tf.sigmoid(x))"),
    _wrong(softmax, "upstream * p * (1.0 - p)"),
    _wrong(log_softmax, "upstream - tf.exp(y) * upstream"),
    _wrong(saturate, "return tf.identity(upstream)"),
    _wrong(scaled_tanh, "0.6667 * (1.0 - x * x)"),
    _wrong(energy, "return d_speed, d_mass", PAIR),
    _wrong(transmittance, "tf.math.cumprod(", ALPHA, OPAQUE),
    _wrong(relu6, "tf.where(x > 0.0, upstream, 0.0)", None, HIGH),
    _wrong(mean_and_deviation, "return d_mean * tf.ones_like(x)"),
)
