"""Terms that are marked inside of a compiled loss.

Read in Keras 3.15.1: `losses/loss.py` (Loss, reduce_weighted_values).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from keras.src import backend
from keras.src.losses.loss import reduce_weighted_values

__all__ = ["Mark", "reduced"]


class Mark(NamedTuple):
    """A term inside of a compiled loss, not reduced yet.

    Attributes:
        name: what the user calls it.
        value: float tensor, of any shape that the loss may have.
        weight: what it is multiplied by.
    """

    name: str
    value: Any
    weight: Any


def reduced(
    mark: Mark, loss: Any, each: list[Any], p: Any, sample_weight: Any
) -> Any:
    """Returns a term's share of a loss, as `Loss.__call__` reduces.

    Args:
        mark: the term.
        loss: the `keras.losses.Loss` inside of which it was marked.
        each: what calls of the loss have returned, not reduced.
        p: the predictions.
        sample_weight: what the examples weigh, or `None`.

    Returns:
        Float32 scalar.
    """
    value = tf.convert_to_tensor(mark.value)
    if not each:  # a loss that overrides `__call__`: nothing is known
        return tf.reduce_mean(tf.cast(value, tf.float32))
    like = tf.convert_to_tensor(each[-1])
    extra = (value.shape.rank or 0) - (like.shape.rank or 0)
    if extra > 0:
        value = tf.reduce_mean(value, list(range(-extra, 0)))
    if value.shape.rank and not _alike(value, like):
        value = tf.reduce_mean(value)  # one of each class, say
    value = tf.cast(value, like.dtype) + tf.zeros_like(like)
    masks = [backend.get_keras_mask(t) for t in (p, each[-1])]
    known = [tf.cast(m, tf.bool) for m in masks if m is not None]
    mask = None if not known else tf.reduce_all(tf.stack(known), 0)
    return tf.reduce_sum(
        tf.cast(
            reduce_weighted_values(
                value, sample_weight, mask, loss.reduction, loss.dtype
            ),
            tf.float32,
        )
    )


def _alike(value: Any, like: Any) -> bool:
    """Whether two tensors may have the same shape, `[batch, ...]`."""
    if value.shape.rank != like.shape.rank:
        return False
    # A batch of unknown size is no dimension that is known elsewhere.
    return all(a == b for a, b in zip(value.shape, like.shape))
