"""Branches that are hardly ever taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["apart"]


def apart(branch: Callable[[], Any]) -> Callable[[], Any]:
    """Returns a rare branch of a `tf.cond` as a function that is not inlined.

    TensorFlow's executor visits every operation of a branch that is not taken,
    a dozen for each gradient of a verdict; a call it visits once.
    """
    if tf.executing_eagerly():
        return branch
    attributes = {"_noinline": True}
    return tf.function(
        branch, autograph=False, experimental_attributes=attributes
    )
