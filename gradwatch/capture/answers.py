"""What targets allow: the loss of the best answers to them.

If the targets themselves are predicted, a loss is as low as it can be: 0 for a
distance, the targets' entropy for a cross-entropy. The mean of the targets is
the best of all constant predictions (their median for absolute errors); who has
learned nothing about the inputs cannot do better than that. Read in Keras
3.15.1: `losses/losses.py` (LossFunctionWrapper and the functions).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src.backend import get_keras_mask

__all__ = ["ANSWERS", "answers"]

ANSWERS = ("component_lowest_loss", "component_constant_loss")
"""Signals of `answers`."""

_BINARY = keras.losses.binary_crossentropy
_ROWS = keras.losses.categorical_crossentropy
_CLASSES = keras.losses.sparse_categorical_crossentropy
_ABSOLUTE = keras.losses.mean_absolute_error
_NUMBERS = (
    keras.losses.mean_squared_error,
    keras.losses.huber,
    keras.losses.log_cosh,
    keras.losses.poisson,
)
_SUMS = ("sum", "none", None)


def answers(loss: Any, weight: Any, y: Any, p: Any) -> dict[str, Any]:
    """Returns what a compiled loss would be if the answers were best.

    Args:
        loss: a `keras.losses.Loss`.
        weight: by which the loss is multiplied, or `None`.
        y: the targets, `[batch, ...]`.
        p: the predictions, `[batch, ...]`; only their shape and mask count.

    Returns:
        Signal -> float32 scalar: the lowest loss, and that of the best constant
        (of the mean, where no formula is known). Empty if the loss is no mean
        over the batch of a function of Keras' that is known here, or its
        predictions are masked.
    """
    function: Any = getattr(loss, "fn", None)
    known = function in (_BINARY, _ROWS, _CLASSES, _ABSOLUTE, *_NUMBERS)
    masked = get_keras_mask(p) is not None
    if not known or masked or loss.reduction in _SUMS or 0 in y.shape:
        return {}
    options = dict(loss._fn_kwargs)
    if function is _CLASSES:
        if options.pop("ignore_class", None) is not None:
            return {}
        function, y = _ROWS, _one_hot(y, p)
    y = tf.cast(y, tf.float32)
    smoothing = options.pop("label_smoothing", 0.0)
    if function in (_BINARY, _ROWS):
        options["from_logits"] = False
        share = 0.5 if function is _BINARY else 1.0 / y.shape[-1]
        y = y * (1.0 - smoothing) + smoothing * share
    constant = _median(y) if function is _ABSOLUTE else tf.reduce_mean(y, 0)
    best = (y, tf.broadcast_to(constant, tf.shape(y)))
    losses = [tf.reduce_mean(function(y, each, **options)) for each in best]
    factor = 1.0 if weight is None else tf.cast(weight, tf.float32)
    values = [factor * tf.cast(each, tf.float32) for each in losses]
    return dict(zip(ANSWERS, values))


def _one_hot(y: Any, p: Any) -> Any:
    """Rows of class ids, as many classes as the predictions have."""
    if y.shape.rank == p.shape.rank:
        y = tf.squeeze(y, -1)
    return tf.one_hot(tf.cast(y, tf.int32), p.shape[-1])


def _median(y: Any) -> Any:
    ordered = tf.sort(y, 0)
    return ordered[tf.shape(y)[0] // 2]
