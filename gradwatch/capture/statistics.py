"""Statistics of tensors, in the graph: static shapes, so XLA compiles them.

Too dear for every step; X-rays measure them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorflow as tf

from gradwatch.signals import HISTOGRAM_EDGES

__all__ = [
    "EXAMPLES",
    "batch_signals",
    "batch_statistics",
    "distance",
    "entry_statistics",
    "flat",
    "histogram",
    "quantiles",
    "unit_signals",
    "unit_spread",
    "unit_statistics",
]

EXAMPLES = ("example_loss_median", "example_loss_high", "example_loss_max")
"""Signals of `quantiles`."""

_BINS = len(HISTOGRAM_EDGES) + 1
_SIDE = len(HISTOGRAM_EDGES) // 2  # edges on one side of zero
_SMALLEST = float(HISTOGRAM_EDGES[_SIDE])
_DISTINCT = 64
_NEAR = 0.01

_Function = TypeVar("_Function", bound=Callable[..., Any])
_UNIT = (
    "layer_silent_ratio",
    "layer_mean",
    "layer_std",
    "layer_max_abs",
    "layer_nonfinite",
    "layer_bound_ratio",
)
_BATCH = (
    "batch_nonfinite_ratio",
    "batch_min",
    "batch_max",
    "batch_mean",
    "batch_std",
    "batch_integer_ratio",
    "batch_distinct",
    "batch_example_std",
    "batch_unit_row_ratio",
)
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
}


def flat(tensor: Any) -> Any:
    """Returns the entries as float32 `[n]`."""
    return tf.reshape(tf.cast(tensor, tf.float32), [-1])


_ENTRIES = tf.TensorSpec([None], tf.float32)
_ROWS = tf.TensorSpec([None, None], tf.float32)


def _traced_once(*signature: Any) -> Callable[[_Function], _Function]:
    """One small graph for all variables or layers, a call is one operation.

    It is not written out there: TensorFlow's optimizer of graphs (Grappler)
    took 26 s in place of 11 then, for 200 variables, and the process 1.54 GB at
    most in place of 1.26 (TensorFlow 2.21).
    """
    made: Callable[[_Function], _Function] = tf.function(
        input_signature=signature,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    return made


@_traced_once(_ENTRIES)
def histogram(entries: Any) -> Any:
    """Returns int64 `[bins]`: finite entries by `HISTOGRAM_EDGES`.

    An entry within rounding (1e-6 relative) of an edge may be counted on its
    other side.

    Args:
        entries: float32 `[n]`.
    """
    finite = tf.math.is_finite(entries)
    size = tf.where(finite, tf.abs(entries), 0.0)
    logs = tf.math.log(tf.maximum(size, _SMALLEST)) / tf.math.log(10.0)
    first = tf.math.log(_SMALLEST) / tf.math.log(10.0)
    place = tf.cast(tf.floor(2 * (logs - first) + 1e-4), tf.int32) + 1
    place = tf.where(size < _SMALLEST, 0, tf.minimum(place, _SIDE))
    place = _SIDE + tf.where(entries < 0, -place, place)
    place = tf.where(finite, place, _BINS)  # not counted
    counts = tf.math.unsorted_segment_sum(tf.ones_like(place), place, _BINS + 1)
    return tf.cast(counts[:_BINS], tf.int64)


@_traced_once(_ENTRIES, _ENTRIES)
def distance(entries: Any, before: Any) -> Any:
    """Returns the L2 norm of what was added, float32 scalar.

    Args:
        entries: float32 `[n]`.
        before: float32 `[n]`.
    """
    return tf.norm(entries - before)


def unit_signals(activation: str) -> tuple[str, ...]:
    """Returns the signals of `unit_statistics`."""
    return _UNIT if activation in _BOUNDS else _UNIT[:-1]


@_traced_once(_ENTRIES, _ENTRIES)
def entry_statistics(gradient: Any, weight: Any) -> list[Any]:
    """Returns what the entries of a gradient and of its weight are like.

    Args:
        gradient: float32 `[m]`.
        weight: float32 `[n]`.

    Returns:
        Float32 scalars: largest absolute entry and share of exact zeros of the
        gradient, L2 norm of the weight. Then the `histogram` of each.
    """
    largest = tf.reduce_max(tf.abs(gradient))
    zeros = _share(tf.equal(gradient, 0.0))
    histograms = histogram(gradient), histogram(weight)
    return [largest, zeros, tf.norm(weight), *histograms]


def unit_statistics(rows: Any, activation: str) -> dict[str, Any]:
    """Returns what a layer's outputs say about its units.

    Args:
        rows: float32 `[samples and positions, units]`.
        activation: Keras' name of the layer's activation.

    Returns:
        Signal -> float32 scalar. A unit is silent if it is exactly 0 for all
        samples (and positions); an entry is at a bound of its activation if it
        is within 1 % of the range of it, where the derivative of a sigmoid has
        fallen to 4 % of its largest (0.01 * 0.99 against 0.25).
    """
    values = list(_unit_statistics(rows))
    if activation in _BOUNDS:
        values.append(_bound_ratio(rows, *_BOUNDS[activation]))
    return dict(zip(_UNIT, values))


@_traced_once(_ROWS)
def _unit_statistics(rows: Any) -> list[Any]:
    silent = tf.reduce_all(tf.equal(rows, 0.0), 0)
    mean = tf.reduce_mean(rows)
    return [
        _share(silent),
        mean,
        tf.sqrt(tf.reduce_mean((rows - mean) ** 2)),
        tf.reduce_max(tf.abs(rows)),
        _count(~tf.math.is_finite(rows)),
    ]


def _bound_ratio(rows: Any, low: float, high: float) -> Any:
    near = _NEAR * (high - low)
    return _share((rows <= low + near) | (rows >= high - near))


def batch_signals(tensor: Any) -> tuple[str, ...]:
    """Returns the signals of `batch_statistics`."""
    return _BATCH if (tensor.shape.rank or 0) > 1 else _BATCH[:-1]


def batch_statistics(tensor: Any) -> dict[str, Any]:
    """Returns what a field of the batch, or predictions, look like.

    Args:
        tensor: number tensor `[batch, ...]`.

    Returns:
        Signal -> float32 scalar. Integers beyond 2^24 are told as the nearest
        float32. Row sums of one are those of the last axis, within 1e-3.
    """
    values = list(_entry_summary(flat(tensor)))
    rows = tf.cast(tensor, tf.float32)
    values.append(_example_std(tf.reshape(rows, [tf.shape(rows)[0], -1])))
    if (tensor.shape.rank or 0) > 1:
        sums = tf.reduce_sum(rows, -1)
        values.append(_share(tf.abs(sums - 1.0) < 1e-3))
    return dict(zip(_BATCH, values))


@_traced_once(_ENTRIES)
def _entry_summary(entries: Any) -> list[Any]:
    mean = tf.reduce_mean(entries)
    ordered = tf.sort(entries)
    steps = tf.cast(ordered[1:] != ordered[:-1], tf.float32)
    distinct = 1.0 + tf.reduce_sum(steps)
    return [
        _share(~tf.math.is_finite(entries)),
        tf.reduce_min(entries),
        tf.reduce_max(entries),
        mean,
        tf.sqrt(tf.reduce_mean((entries - mean) ** 2)),
        _share(tf.equal(entries, tf.round(entries))),
        tf.minimum(distinct, float(_DISTINCT)),
    ]


@_traced_once(_ROWS)
def _example_std(rows: Any) -> Any:
    away = rows - tf.reduce_mean(rows, 0)
    return tf.sqrt(tf.reduce_mean(away**2))


@_traced_once(_ROWS)
def unit_spread(rows: Any) -> Any:
    """Returns how unlike a variable's units are, float32 scalar.

    Args:
        rows: float32 `[inputs, units]`.

    Returns:
        Standard deviation over the units, root mean square over the inputs, by
        the root mean square of the entries; 0 if all of them are 0.
    """
    away = rows - tf.reduce_mean(rows, 1, keepdims=True)
    part = tf.reduce_mean(away**2) / tf.reduce_mean(rows**2)
    return tf.sqrt(tf.where(tf.reduce_any(rows != 0.0), part, 0.0))


def quantiles(losses: Any) -> dict[str, Any]:
    """Returns the median, the 90 % quantile and the largest loss of examples.

    Args:
        losses: float tensor `[batch, ...]`; averaged over further axes.

    Returns:
        Signal -> float32 scalar, the nearest rank.
    """
    losses = tf.cast(losses, tf.float32)
    each = tf.reduce_mean(losses, list(range(1, losses.shape.rank)))
    ordered = tf.sort(each)
    last = tf.shape(ordered)[0] - 1

    def at(share: float) -> Any:
        place = tf.round(share * tf.cast(last, tf.float32))
        return ordered[tf.cast(place, tf.int32)]

    return dict(zip(EXAMPLES, (at(0.5), at(0.9), ordered[-1])))


def _share(flags: Any) -> Any:
    return tf.reduce_mean(tf.cast(flags, tf.float32))


def _count(flags: Any) -> Any:
    return tf.reduce_sum(tf.cast(flags, tf.float32))
