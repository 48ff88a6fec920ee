"""Correct smooth activations as people write them."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from keras import ops

from tests.audit.records import Correct

__all__ = ["ACTIVATIONS"]


def swish(x: Any) -> Any:
    """Self-gated activation."""
    return x * tf.sigmoid(x)


def mish(x: Any) -> Any:
    """Like Swish, gated by tanh of softplus."""
    return x * ops.tanh(ops.softplus(x))


def gelu(x: Any) -> Any:
    """Gaussian error linear unit."""
    return 0.5 * x * (1.0 + tf.math.erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Any) -> Any:
    """GELU by tanh."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1.0 + tf.tanh(inner))


def snake(x: Any) -> Any:
    """Activation for periodic data."""
    return x + tf.square(tf.sin(x))


def lecun_tanh(x: Any) -> Any:
    """The tanh that LeCun recommends."""
    return 1.7159 * tf.tanh(2.0 / 3.0 * x)


def fourier_features(x: Any) -> Any:
    """Sines of octaves, so that a small net can draw fine detail."""
    waves = x[..., None] * [2.0**k for k in range(9)]
    return tf.concat([tf.sin(waves), tf.cos(waves)], axis=-1)


def _fine(function: Any) -> Correct:
    name = f"activation_{function.__name__}"
    return Correct(name, lambda: function, None)


ACTIVATIONS = (
    _fine(swish),
    _fine(mish),
    _fine(gelu),
    _fine(gelu_tanh),
    _fine(snake),
    _fine(lecun_tanh),
    _fine(fourier_features),
)
