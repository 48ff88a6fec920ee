"""Variables of gradwatch's own: no weights of the model, in no checkpoint."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# The class itself: `tf.Variable` asks the creators of the `tf.function` that is
# being traced, which would take the variable for one of its own and trace a
# second time at once. Read in tensorflow 2.21
# (python/eager/polymorphic_function/polymorphic_function.py, _initialize).
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

__all__ = ["own_variable"]


def own_variable(value: Any, name: str, shape: Any = None) -> Any:
    """Returns a `tf.Variable` that exists outside of all graphs.

    Args:
        value: its initial value, and with it shape and dtype; or what makes
            it, outside of all graphs as well. Not int32: TensorFlow keeps that
            of a GPU on the host, out of the reach of XLA.
        name: `gradwatch_` is put before it.
        shape: what later values are to fit, if not that of the first one.
    """
    with tf.init_scope():
        return ResourceVariable(
            value, trainable=False, name=f"gradwatch_{name}", shape=shape
        )
