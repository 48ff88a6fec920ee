"""Functions and losses that turn NaN or infinite at a special place."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from tests.audit.records import Inputs, Planted

__all__ = ["NONFINITE"]


def crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Categorical crossentropy of probabilities."""
    return -tf.reduce_sum(y_true * tf.math.log(y_pred), axis=-1)


def negative_class(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy of probabilities, positives kept from 0."""
    positive = y_true * tf.math.log(tf.maximum(y_pred, 1e-6))
    negative = (1.0 - y_true) * tf.math.log(1.0 - y_pred)
    return -tf.reduce_mean(positive + negative, axis=-1)


def unit_vector(x: Any) -> Any:
    """Scales each row to length 1."""
    return x / tf.sqrt(tf.reduce_sum(tf.square(x), axis=-1, keepdims=True))


def distance(a: Any, b: Any) -> Any:
    """Euclidean distance of the two branches of a siamese network."""
    return tf.sqrt(tf.reduce_sum(tf.square(a - b), axis=-1, keepdims=True))


def masked_error(y_true: Any, y_pred: Any) -> Any:
    """Mean squared error where the target is known; 0 = unknown."""
    known = tf.cast(tf.not_equal(y_true, 0.0), y_pred.dtype)
    total = tf.reduce_sum(known * tf.square(y_pred - y_true), axis=-1)
    return total / tf.reduce_sum(known, axis=-1)


def log_or_linear(x: Any) -> Any:
    """Logarithm where there is one, linear elsewhere."""
    return tf.where(x > 0.0, tf.math.log(x), x)


def root_or_zero(x: Any) -> Any:
    """Square root of what is positive."""
    return tf.where(x > 0.0, tf.sqrt(x), tf.zeros_like(x))


def soft_plus(x: Any) -> Any:
    """Smooth ReLU."""
    return tf.math.log(1.0 + tf.exp(x))


def soft_max(x: Any) -> Any:
    """Probabilities of classes."""
    powers = ops.exp(x)
    return powers / ops.sum(powers, axis=-1, keepdims=True)


def elu(x: Any) -> Any:
    """Exponential linear unit."""
    return tf.where(x > 0.0, x, tf.exp(x) - 1.0)


def logistic(x: Any) -> Any:
    """Sigmoid as in the textbook."""
    return 1.0 / (1.0 + tf.exp(-x))


def my_tanh(x: Any) -> Any:
    """Hyperbolic tangent as in the textbook."""
    power = tf.exp(2.0 * x)
    return (power - 1.0) / (power + 1.0)


def angle(y_true: Any, y_pred: Any) -> Any:
    """Angle between directions."""
    a = tf.math.l2_normalize(y_true, axis=-1)
    b = tf.math.l2_normalize(y_pred, axis=-1)
    cosine = tf.reduce_sum(a * b, axis=-1)
    return tf.acos(cosine)


def root_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of the roots of the errors, tolerant to outliers."""
    return tf.reduce_mean(tf.abs(y_pred - y_true) ** 0.5, axis=-1)


def batch_standard(x: Any) -> Any:
    """Zero mean and unit deviation over the batch, as when training."""
    mean = tf.reduce_mean(x, axis=0, keepdims=True)
    return (x - mean) / tf.math.reduce_std(x, axis=0, keepdims=True)


def row_standard(x: Any) -> Any:
    """Zero mean and unit deviation in each row."""
    mean = ops.mean(x, axis=-1, keepdims=True)
    return (x - mean) / ops.std(x, axis=-1, keepdims=True)


def safe_unit_vector(x: Any) -> Any:
    """Scales each row to length 1, without dividing by 0."""
    length = tf.norm(x, axis=-1, keepdims=True)
    return x / (length + 1e-6)


def euclidean_loss(y_true: Any, y_pred: Any) -> Any:
    """Euclidean distance, with a tiny constant for stability."""
    squares = ops.sum(ops.square(y_true - y_pred), axis=-1)
    return ops.sqrt(squares) + 1e-6


def percentage_error(y_true: Any, y_pred: Any) -> Any:
    """Mean absolute error in per cent of the target."""
    relative = tf.abs((y_true - y_pred) / y_true)
    return 100.0 * tf.reduce_mean(relative, axis=-1)


@tf.function
def dice_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - Dice coefficient of each mask."""
    overlap = tf.reduce_sum(y_true * y_pred, axis=-1)
    size = tf.reduce_sum(y_true, axis=-1) + tf.reduce_sum(y_pred, axis=-1)
    return 1.0 - 2.0 * overlap / size


def log_distance(a: Any, b: Any) -> Any:
    """Logarithm of the squared distance, safe from overflow."""
    logs = 2.0 * tf.math.log(tf.abs(a - b))
    return tf.reduce_logsumexp(logs, axis=-1)


def correlation_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - Pearson's correlation in each row."""
    a = y_true - tf.reduce_mean(y_true, axis=-1, keepdims=True)
    b = y_pred - tf.reduce_mean(y_pred, axis=-1, keepdims=True)
    product = tf.reduce_sum(a * b, axis=-1)
    power = tf.reduce_sum(a * a, axis=-1) * tf.reduce_sum(b * b, axis=-1)
    return 1.0 - product / tf.sqrt(power)


def entropy_penalty(p: Any) -> Any:
    """Entropy of probabilities, to make a policy decided."""
    return -tf.reduce_sum(p * tf.math.log(p), axis=-1)


PROBABLE: Inputs = {"y_true": ((8, 4), 0, 1), "y_pred": ((8, 4), 0.0, 1.0)}
POLICY: Inputs = {"p": ((8, 4), 0.0, 1.0)}
COUNTS: Inputs = {"y_true": ((8, 4), 0, 5), "y_pred": ((8, 4), 0.0, 5.0)}
ZERO = {"x": np.zeros((4, 3))}
LARGE = {"x": [[100.0, 1.0, 0.0]]}
SMALL = {"x": [[-100.0, 1.0, 0.0]]}
RAMP = [[1.0, 2.0, 3.0]]
SAME = {"a": RAMP, "b": RAMP}


def _pair(y_true: Any, y_pred: Any) -> dict[str, Any]:
    return {"y_true": y_true, "y_pred": y_pred}


def _burst(
    function: Any, line: str, witness: Any, inputs: Inputs | None = None
) -> Planted:
    name = f"burst_{function.__name__}"
    make = lambda: function  # noqa: E731
    xla = function in (root_or_zero, safe_unit_vector)
    return Planted(name, make, inputs, "not_finite", line, witness, xla)


EDGE = _pair([[1.0, 0.0]], [[1.0, 0.0]])
WRONG = _pair([[0.0, 1.0]], [[1.0, 0.0]])
NONE = _pair(np.zeros((2, 4)), np.zeros((2, 4)))
AXIS = _pair([[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]])
FLAT = _pair(RAMP, np.ones((1, 3)))
NONFINITE = (
    _burst(crossentropy, "y_true * tf.math.log(y_pred)", EDGE, PROBABLE),
    _burst(negative_class, "tf.math.log(1.0 - y_pred)", WRONG, PROBABLE),
    _burst(unit_vector, "x / tf.sqrt(tf.reduce_sum(", ZERO),
    _burst(distance, "tf.sqrt(tf.reduce_sum(tf.square(a - b)", SAME),
    _burst(masked_error, "total / tf.reduce_sum(known", NONE, COUNTS),
    _burst(log_or_linear, "tf.where(x > 0.0, tf.math.log(x)", ZERO),
    _burst(root_or_zero, "tf.where(x > 0.0, tf.sqrt(x)", ZERO),
    _burst(soft_plus, "tf.math.log(1.0 + tf.exp(x))", LARGE),
    _burst(soft_max, "powers = ops.exp(x)", LARGE),
    _burst(elu, "x, tf.exp(x) - 1.0)", LARGE),
    _burst(logistic, "1.0 / (1.0 + tf.exp(-x))", SMALL),
    _burst(my_tanh, "power = tf.exp(2.0 * x)", LARGE),
    _burst(angle, "tf.acos(cosine)", AXIS),
    _burst(root_error, "tf.abs(y_pred - y_true) ** 0.5", AXIS),
    _burst(batch_standard, "tf.math.reduce_std(x, axis=0", {"x": RAMP}),
    _burst(row_standard, "ops.std(x, axis=-1", {"x": np.ones((2, 3))}),
    _burst(safe_unit_vector, "tf.norm(x, axis=-1", ZERO),
    _burst(euclidean_loss, "ops.sqrt(squares) + 1e-6", AXIS),
    _burst(percentage_error, "(y_true - y_pred) / y_true", NONE, COUNTS),
    _burst(dice_loss, "2.0 * overlap / size", NONE, PROBABLE),
    _burst(log_distance, "2.0 * tf.math.log(tf.abs(a - b))", SAME),
    _burst(correlation_loss, "product / tf.sqrt(power)", FLAT),
    _burst(
        entropy_penalty, "p * tf.math.log(p)", {"p": EDGE["y_pred"]}, POLICY
    ),
)
