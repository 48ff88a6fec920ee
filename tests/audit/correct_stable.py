"""Correct code where numerics break easily, and correct backward passes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from tests.audit.records import Correct, Inputs

__all__ = ["STABLE"]


def crossentropy(y_true: Any, logits: Any) -> Any:
    """Categorical crossentropy of logits."""
    return -tf.reduce_sum(y_true * tf.nn.log_softmax(logits), axis=-1)


def binary_crossentropy(y_true: Any, logits: Any) -> Any:
    """Binary crossentropy of logits, as TensorFlow's documentation has it."""
    rest = tf.math.log1p(tf.exp(-tf.abs(logits)))
    loss = tf.maximum(logits, 0.0) - logits * y_true + rest
    return tf.reduce_mean(loss, axis=-1)


def clipped_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy of clipped probabilities."""
    p = ops.clip(y_pred, 1e-6, 1.0 - 1e-6)
    loss = y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p)
    return -ops.mean(loss, axis=-1)


def softplus(x: Any) -> Any:
    """Smooth ReLU that does not overflow."""
    return ops.maximum(x, 0.0) + ops.log1p(ops.exp(-ops.abs(x)))


def softmax(logits: Any) -> Any:
    """Probabilities of classes; the largest logit is taken off first."""
    top = tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True))
    powers = tf.exp(logits - top)
    return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """Logarithm of the hyperbolic cosine of the error."""
    size = tf.abs(y_pred - y_true)
    loss = size + tf.math.log1p(tf.exp(-2.0 * size)) - 0.6931472
    return tf.reduce_mean(loss, axis=-1)


def log_or_linear(x: Any) -> Any:
    """Logarithm above 1, linear below."""
    above = x > 1.0
    safe = tf.where(above, x, tf.ones_like(x))
    return tf.where(above, tf.math.log(safe), x - 1.0)


def root_or_linear(x: Any) -> Any:
    """Square root above 1, linear below."""
    above = ops.greater(x, 1.0)
    safe = ops.where(above, x, ops.ones_like(x))
    return ops.where(above, ops.sqrt(safe), x)


def unit_vector(x: Any) -> Any:
    """Scales each row to length 1."""
    power = tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
    return x / tf.sqrt(power + 1e-6)


def distance(a: Any, b: Any) -> Any:
    """Euclidean distance of the two branches of a siamese network."""
    square = tf.reduce_sum(tf.square(a - b), axis=-1, keepdims=True)
    return tf.sqrt(tf.maximum(square, 1e-6))


def cosine_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - cosine of the angle between embeddings."""
    a = tf.math.l2_normalize(y_true, axis=-1, epsilon=1e-6)
    b = tf.math.l2_normalize(y_pred, axis=-1, epsilon=1e-6)
    return 1.0 - tf.reduce_sum(a * b, axis=-1)


def angle(a: Any, b: Any) -> Any:
    """Angle between directions, kept from where acos is steep."""
    a = tf.math.l2_normalize(a, axis=-1, epsilon=1e-6)
    b = tf.math.l2_normalize(b, axis=-1, epsilon=1e-6)
    cosine = tf.reduce_sum(a * b, axis=-1)
    return tf.acos(tf.clip_by_value(cosine, -1.0 + 1e-6, 1.0 - 1e-6))


def entropy(p: Any) -> Any:
    """Entropy of probabilities, kept from 0."""
    p = ops.maximum(p, 1e-6)
    return -ops.sum(p * ops.log(p), axis=-1)


def correlation_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - Pearson's correlation in each row."""
    a = y_true - tf.reduce_mean(y_true, axis=-1, keepdims=True)
    b = y_pred - tf.reduce_mean(y_pred, axis=-1, keepdims=True)
    left = tf.math.rsqrt(tf.reduce_sum(a * a, axis=-1) + 1e-4)
    right = tf.math.rsqrt(tf.reduce_sum(b * b, axis=-1) + 1e-4)
    return 1.0 - tf.reduce_sum(a * b, axis=-1) * left * right


@tf.custom_gradient
def log1pexp(x: Any) -> Any:
    """Softplus with a backward pass of its own."""

    def grad(upstream: Any) -> Any:
        return upstream * tf.sigmoid(x)

    return tf.maximum(x, 0.0) + tf.math.log1p(tf.exp(-tf.abs(x))), grad


@tf.custom_gradient
def manual_unit_vector(x: Any) -> Any:
    """Scales each row to length 1, with a backward pass of its own."""
    length = tf.sqrt(tf.reduce_sum(x * x, -1, keepdims=True) + 1e-6)
    y = x / length

    def grad(upstream: Any) -> Any:
        along = tf.reduce_sum(upstream * y, -1, keepdims=True)
        return (upstream - y * along) / length

    return y, grad


@tf.custom_gradient
def standardize(x: Any) -> Any:
    """Zero mean and unit variance in each row, by hand."""
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    scale = tf.math.rsqrt(variance + 1e-3)
    y = (x - mean) * scale

    def grad(upstream: Any) -> Any:
        shared = tf.reduce_mean(upstream, axis=-1, keepdims=True)
        along = tf.reduce_mean(upstream * y, axis=-1, keepdims=True)
        return scale * (upstream - shared - y * along)

    return y, grad


@tf.custom_gradient
def manual_softmax(logits: Any) -> Any:
    """Probabilities of classes, with their whole Jacobian."""
    p = tf.nn.softmax(logits)

    def grad(upstream: Any) -> Any:
        mean = tf.reduce_sum(upstream * p, axis=-1, keepdims=True)
        return p * (upstream - mean)

    return p, grad


@tf.custom_gradient
def add_bias(x: Any, bias: Any) -> Any:
    """Adds a bias to each row."""

    def grad(upstream: Any) -> Any:
        return upstream, tf.reduce_sum(upstream, axis=0)

    return x + bias, grad


@ops.custom_gradient
def gate(value: Any, switch: Any) -> Any:
    """Lets a value through as far as its switch is open."""
    opened = ops.sigmoid(switch)

    def grad(*args: Any, upstream: Any = None) -> Any:
        if upstream is None:
            (upstream,) = args
        d_switch = upstream * value * opened * (1.0 - opened)
        return upstream * opened, d_switch

    return value * opened, grad


@tf.custom_gradient
def response_normalization(x: Any) -> Any:
    """Divides by the power of the whole row, with its chain rule."""
    base = 1.0 + 0.5 * tf.reduce_mean(x * x, axis=-1, keepdims=True)
    width = tf.cast(tf.shape(x)[-1], x.dtype)

    def grad(upstream: Any) -> Any:
        along = tf.reduce_sum(upstream * x, axis=-1, keepdims=True)
        return upstream / base - x * along / (width * base * base)

    return x / base, grad


@tf.custom_gradient
def clip_gradient(x: Any) -> Any:
    """Identity; clips what comes back to [-10, 10] on purpose."""

    def grad(upstream: Any) -> Any:
        return tf.clip_by_value(upstream, -10.0, 10.0)

    return tf.identity(x), grad


@tf.custom_gradient
def mean_and_deviation(x: Any) -> Any:
    """Two results, each with its own upstream gradient."""
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    deviation = tf.sqrt(variance + 1e-4)

    def grad(d_mean: Any, d_deviation: Any) -> Any:
        width = tf.cast(tf.shape(x)[-1], x.dtype)
        return (d_mean + d_deviation * (x - mean) / deviation) / width

    return (mean, deviation), grad


HARD: Inputs = {"y_true": ((8, 3), 0, 1), "logits": ((8, 3), -9.0, 9.0)}
SHARES: Inputs = {"y_true": ((8, 3), 0, 1), "y_pred": ((8, 3), 0.0, 1.0)}
POLICY: Inputs = {"p": ((8, 4), 0.0, 1.0)}
BIAS: Inputs = {"x": ((8, 5), -2.0, 2.0), "bias": ((5,), -1.0, 1.0)}


def _fine(function: Any, inputs: Inputs | None = None) -> Correct:
    return Correct(f"stable_{function.__name__}", lambda: function, inputs)


STABLE = (
    _fine(crossentropy, HARD),
    _fine(binary_crossentropy, HARD),
    _fine(clipped_crossentropy, SHARES),
    _fine(softplus),
    _fine(softmax),
    _fine(log_cosh),
    _fine(log_or_linear),
    _fine(root_or_linear),
    _fine(unit_vector),
    _fine(distance),
    _fine(cosine_loss),
    _fine(angle),
    _fine(entropy, POLICY),
    _fine(correlation_loss),
    _fine(log1pexp),
    _fine(manual_unit_vector),
    _fine(standardize),
    _fine(manual_softmax),
    _fine(add_bias, BIAS),
    _fine(gate),
    _fine(response_normalization),
    _fine(clip_gradient),
    _fine(mean_and_deviation),
)
