"""L2 norms of gradients, right at every magnitude and cheap at most.

The everyday path is one pass per tensor (`tf.nn.l2_loss`, on CPU 2 to 9 times
faster than other sums of squares). Where a float32 sum of squares may have
overflowed or lost small entries, the norm is settled in float64, in a branch
that is rarely taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

__all__ = ["all_finite", "global_norm", "merge_duplicates", "norms"]

# Squares below 1.2e-38 are flushed to zero: a billion entries can lose 1.2e-29
# together, which is 1e-5 of this. Above the upper bound the sum may overflow.
_LOWEST, _HIGHEST = 1e-24, 1e37


def norms(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """Returns the L2 norm of each tensor and whether all entries are finite.

    Args:
        tensors: n float tensors of any shape, or `tf.IndexedSlices`, whose
            duplicate rows are summed first, as the optimizer does.

    Returns:
        float32 `[n]` and bool `[n]`. The norm of a tensor that holds NaN or
        Inf is NaN or Inf. A norm above 3.4e38 is Inf although the entries may
        be finite; the second result tells.
    """
    dense = [
        merge_duplicates(t) if isinstance(t, tf.IndexedSlices) else t
        for t in tensors
    ]
    squares = tf.stack([_squares(t) for t in dense])
    sure = (squares > _LOWEST) & (squares < _HIGHEST)
    return tf.cond(
        tf.reduce_all(sure),
        lambda: (tf.sqrt(squares), tf.ones_like(sure)),
        lambda: _settled(dense, squares, sure),
    )


def all_finite(tensors: Sequence[Any]) -> Any:
    """Returns, bool `[n]`, which of n float tensors hold finite entries only.

    One pass each: a finite sum of squares proves it, any other is looked at.
    """
    squares = tf.stack([_squares(t) for t in tensors])
    return tf.cond(
        tf.reduce_all(squares < _HIGHEST),
        lambda: tf.ones_like(squares, tf.bool),
        lambda: tf.stack(
            [tf.reduce_all(tf.math.is_finite(t)) for t in tensors]
        ),
    )


def global_norm(each: Any) -> Any:
    """Returns the L2 norm, float32 scalar, over tensors of norms `[n]`."""
    return tf.cast(
        tf.sqrt(tf.reduce_sum(tf.square(tf.cast(each, tf.float64)))), tf.float32
    )


def merge_duplicates(slices: Any) -> Any:
    """Returns the rows of `slices` with rows of the same index summed.

    Args:
        slices: `tf.IndexedSlices` with values `[n, ...]`.

    Returns:
        `[n, ...]`: one row for each index, the rest zeros. Static shapes, so
        it compiles under XLA where `tf.unique` does not; nothing of the size
        of the variable is made.
    """
    order = tf.argsort(slices.indices)
    indices = tf.gather(slices.indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.pad(tf.cumsum(starts), [[1, 0]])
    rows = tf.gather(slices.values, order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.shape(rows)[0])


def _squares(tensor: Any) -> Any:
    """Sum of squares, float32 scalar."""
    if tensor.dtype != tf.float64:
        tensor = tf.cast(tensor, tf.float32)
    return tf.cast(2 * tf.nn.l2_loss(tensor), tf.float32)


def _settled(dense: Sequence[Any], squares: Any, sure: Any) -> tuple[Any, Any]:
    exact = tf.stack(
        [
            tf.cond(
                sure[i],
                lambda i=i: tf.cast(tf.sqrt(squares[i]), tf.float64),
                lambda t=t: tf.norm(tf.cast(t, tf.float64)),
            )
            for i, t in enumerate(dense)
        ]
    )
    return tf.cast(exact, tf.float32), tf.math.is_finite(exact)
