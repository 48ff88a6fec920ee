"""Copies of the variables that a step's graph reads.

What is run of a step is run from copies: whatever it assigns, in functions and
loops too, lands there, and it goes on undisturbed when the model trains again.
Read in tensorflow 2.21: `python/ops/handle_data_util.py` (_handle_data).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from gradwatch.capture.variables import own_variable

__all__ = ["copied", "handles"]


def handles(variable: Any) -> Iterator[Any]:
    """Yields the handle of a `keras.Variable`, or those of its replicas."""
    parts = getattr(variable.value, "values", (variable.value,))
    for part in parts:
        yield part.handle


def copied(captured: Any, values: Mapping[int, Any], wide: bool = False) -> Any:
    """Returns a `tf.Variable` like the one whose handle a graph has captured.

    Args:
        captured: an eager tensor.
        values: `id` of a handle -> the array that its copy is to hold; without
            one it holds what the variable does.
        wide: whether it is to be of float64 where the variable is a float.

    Returns:
        `None` of what is no handle of a variable: a table, say.
    """
    if captured.dtype != tf.resource:
        return None
    known = captured._handle_data
    if known is None or len(known.shape_and_type) != 1:
        return None
    (described,) = known.shape_and_type
    dtype = tf.as_dtype(described.dtype)
    if dtype == tf.variant:
        return None
    value = values.get(id(captured))
    if value is None:
        value = tf.raw_ops.ReadVariableOp(resource=captured, dtype=dtype)
    value = tf.cast(tf.convert_to_tensor(value), dtype)
    if wide and dtype.is_floating:
        value = tf.cast(value, tf.float64)
    return own_variable(value, "copy", tf.TensorShape(described.shape))
