"""Code that guards itself with an epsilon that its precision swallows."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from tests.audit.records import Inputs, Planted

__all__ = ["EPSILON"]

EPS = 1e-30


def bernoulli(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of coin tosses."""
    heads = y_true * tf.math.log(y_pred + 1e-7)
    tails = (1.0 - y_true) * tf.math.log(1.0 + 1e-12 - y_pred)
    return -tf.reduce_sum(heads + tails, axis=-1)


def clipped_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy of clipped probabilities."""
    p = ops.clip(y_pred, 1e-9, 1.0 - 1e-9)
    loss = y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p)
    return -ops.mean(loss, axis=-1)


def smooth_distance(a: Any, b: Any) -> Any:
    """Euclidean distance with a tiny constant below the root."""
    squares = tf.reduce_sum(tf.square(a - b), axis=-1)
    return tf.sqrt(squares + EPS**2)


def angular_distance(y_true: Any, y_pred: Any) -> Any:
    """Angle between directions, kept from where acos is steep."""
    a = tf.math.l2_normalize(y_true, axis=-1)
    b = tf.math.l2_normalize(y_pred, axis=-1)
    cosine = tf.reduce_sum(a * b, axis=-1)
    return tf.acos(tf.clip_by_value(cosine, -1.0 + 1e-10, 1.0 - 1e-10))


def squash_inverse(x: Any) -> Any:
    """Turns actions in [-1, 1] back into what the policy drew."""
    return tf.atanh(x * (1.0 - 1e-9))


def l2_norm(x: Any) -> Any:
    """Length of each row, differentiable at 0."""
    return ops.sqrt(ops.sum(ops.square(x), axis=-1) + 1e-50)


SHARES: Inputs = {"y_true": ((8, 4), 0, 1), "y_pred": ((8, 4), 0.0, 1.0)}
ACTIONS: Inputs = {"x": ((8, 4), -1.0, 1.0)}
SURE = {"y_true": [[0.0, 1.0]], "y_pred": [[1.0, 0.5]]}
AXIS = {"y_true": [[1.0, 0.0, 0.0]], "y_pred": [[1.0, 0.0, 0.0]]}
SAME = {"a": [[1.0, 2.0]], "b": [[1.0, 2.0]]}


def _lost(
    function: Any, line: str, witness: Any, inputs: Inputs | None = None
) -> Planted:
    name = f"epsilon_{function.__name__}"
    make = lambda: function  # noqa: E731
    return Planted(name, make, inputs, "swallowed_epsilon", line, witness)


EPSILON = (
    _lost(bernoulli, "tf.math.log(1.0 + 1e-12 - y_pred)", SURE, SHARES),
    _lost(clipped_crossentropy, "1e-9, 1.0 - 1e-9)", SURE, SHARES),
    _lost(smooth_distance, "tf.sqrt(squares + EPS**2)", SAME),
    _lost(angular_distance, "-1.0 + 1e-10, 1.0 - 1e-10", AXIS),
    _lost(
        squash_inverse,
        "tf.atanh(x * (1.0 - 1e-9))",
        {"x": [[1.0, 0.0]]},
        ACTIONS,
    ),
    _lost(l2_norm, "axis=-1) + 1e-50)", {"x": np.zeros((2, 3))}),
)
