"""The verdict on one step: its reading, and whether it may change the model.

Right at every magnitude and cheap at most. The everyday path is one pass per
tensor (`tf.nn.l2_loss`, on CPU 2 to 9 times faster than other sums of squares)
and a dozen operations on small vectors. Only a step in doubt takes the other
branch: a float32 sum of squares has overflowed or may have lost small entries,
something is not finite, or the latch is set. There norms are settled in
float64 and the batch is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

__all__ = ["HEAD", "Step", "Verdict", "judge", "merge_duplicates"]

HEAD = (
    "loss",
    "gradient_norm",
    "nonfinite",
    "nonfinite_batch",
    "nonfinite_weight",
    "update_applied",
)
"""Run-scoped signals that a verdict's values begin with."""

# Squares below 1.2e-38 are flushed to zero: a billion entries can lose 1.2e-29
# together, which is 1e-5 of the lower bound. Below the upper one the sums of a
# thousand variables do not overflow.
_LOWEST, _HIGHEST = 1e-24, 1e35


class Step(NamedTuple):
    """What there is to judge.

    Attributes:
        loss: float scalar.
        gradients: G float tensors of any shape or `tf.IndexedSlices`, unscaled,
            whose duplicate rows are summed first, as the optimizer does.
        weights: float tensors, the variables of these gradients.
        state: S pairs of float tensors: what the forward pass has assigned,
            before and after.
        batch: any nest of tensors.
        squared: whether the optimizer squares gradients, in their own dtype.
    """

    loss: Any
    gradients: Sequence[Any]
    weights: Sequence[Any]
    state: Sequence[tuple[Any, Any]]
    batch: Any
    squared: bool


class Verdict(NamedTuple):
    """What is found.

    Attributes:
        values: float32 `[6 + G + S]`: `HEAD`, then the norm of each gradient,
            then 1 for each state that is not finite. The norm of a tensor that
            holds NaN or Inf is NaN or Inf; a norm above 3.4e38 is Inf although
            the entries may be finite, and `nonfinite` tells.
        bad: bool scalar, whether loss, a gradient, a gradient's square that the
            optimizer needs, or state is not finite. An entry of state that was
            not finite before the step (a mask of -inf) does not count.
        allowed: bool scalar, whether the step may change the model.
    """

    values: Any
    bad: Any
    allowed: Any


def judge(step: Step, latched: Any, guarded: bool) -> Verdict:
    """Returns the verdict on a step, as tensors of the graph being built.

    Args:
        step: what there is to judge.
        latched: bool scalar, whether no step may change the model any more.
        guarded: whether a bad step may not change the model.
    """
    dense = [
        merge_duplicates(g) if isinstance(g, tf.IndexedSlices) else g
        for g in step.gradients
    ]
    state = [now for _, now in step.state]
    halves = [_half_square(t) for t in (*dense, *state)]
    squares = 2 * tf.stack([*halves, _half_square(step.loss)])
    least = [_LOWEST] * len(dense) + [-1.0] * (len(step.state) + 1)
    sure = tf.reduce_all((squares > least) & (squares < _HIGHEST))
    gradients = squares[: len(dense)]
    return Verdict(
        *tf.cond(
            sure & ~latched,
            lambda: _healthy(step, gradients),
            lambda: _settled(step, dense, gradients, latched, guarded),
        )
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
    rows = tf.gather(slices.values, order)
    # Cut for the batch that looks nothing up: no rows, no first segment.
    segments = tf.pad(tf.cumsum(starts), [[1, 0]])[: tf.shape(rows)[0]]
    return tf.math.unsorted_segment_sum(rows, segments, tf.shape(rows)[0])


def _half_square(tensor: Any) -> Any:
    """Half the sum of squares, float32 scalar."""
    if tensor.dtype != tf.float64:
        tensor = tf.cast(tensor, tf.float32)
    return tf.cast(tf.nn.l2_loss(tensor), tf.float32)


def _healthy(step: Step, squares: Any) -> tuple[Any, Any, Any]:
    head = [
        tf.cast(step.loss, tf.float32),
        tf.sqrt(tf.reduce_sum(squares)),
        0.0,
        0.0,
        0.0,
        1.0,
    ]
    flags = tf.zeros(len(step.state))
    values = tf.concat([tf.stack(head), tf.sqrt(squares), flags], 0)
    return values, tf.constant(False), tf.constant(True)


def _settled(
    step: Step, dense: Sequence[Any], squares: Any, latched: Any, guarded: bool
) -> tuple[Any, Any, Any]:
    norms = [tf.norm(tf.cast(t, tf.float64)) for t in dense]
    each = tf.stack([tf.zeros((), tf.float64), *norms])[1:]
    kept = [_finite_where_it_was(*pair) for pair in step.state]
    fine = tf.stack([True, *kept])[1:]
    sums = tf.stack([tf.cast(step.loss, tf.float64), *norms])
    bad = ~(_all_finite(sums) & tf.reduce_all(fine))
    if step.squared:
        bad |= ~_all_finite(squares)
    allowed = ~(bad | latched) if guarded else tf.constant(True)
    head = [
        tf.cast(step.loss, tf.float32),
        tf.cast(tf.norm(each), tf.float32),
        tf.cast(bad, tf.float32),
        tf.cast(bad & ~_floats_finite(step.batch), tf.float32),
        tf.cast(bad & ~_floats_finite(step.weights), tf.float32),
        tf.cast(allowed, tf.float32),
    ]
    flags = tf.cast(~fine, tf.float32)
    values = tf.concat([tf.stack(head), tf.cast(each, tf.float32), flags], 0)
    return values, bad, allowed


def _finite_where_it_was(before: Any, now: Any) -> Any:
    return tf.reduce_all(tf.math.is_finite(now) | ~tf.math.is_finite(before))


def _all_finite(tensor: Any) -> Any:
    return tf.reduce_all(tf.math.is_finite(tensor))


def _floats_finite(nest: Any) -> Any:
    """Whether all float tensors of a nest are finite."""
    floats = [
        tf.convert_to_tensor(leaf)
        for leaf in tf.nest.flatten(nest, expand_composites=True)
        if leaf is not None and leaf.dtype.is_floating
    ]
    return tf.reduce_all(tf.stack([True, *map(_all_finite, floats)]))
