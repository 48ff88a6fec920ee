"""The models and data that overhead is measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["WORKLOADS"]

_ROWS = 2048


def _dataset(x: Any, y: Any, batch: int) -> Any:
    data = tf.data.Dataset.from_tensor_slices((x, y)).cache().repeat()
    return data.batch(batch, drop_remainder=True).prefetch(4)


def mlp() -> tuple[Any, Any]:
    """Four dense layers, 3.4 million weights, batch 128."""
    random = np.random.default_rng(0)
    x = random.normal(size=(_ROWS, 256)).astype(np.float32)
    y = random.integers(0, 10, _ROWS)
    layers = [keras.layers.Dense(1024, activation="relu") for _ in range(3)]
    model = keras.Sequential(
        [keras.Input((256,)), *layers, keras.layers.Dense(1024), _head()]
    )
    return model, _dataset(x, y, 128)


def cnn() -> tuple[Any, Any]:
    """Three convolutions with BatchNorm on 32 x 32 images, batch 64."""
    random = np.random.default_rng(0)
    x = random.normal(size=(_ROWS // 4, 32, 32, 3)).astype(np.float32)
    y = random.integers(0, 10, _ROWS // 4)
    layers: list[Any] = [keras.Input((32, 32, 3))]
    for filters in (16, 32, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
        ]
    model = keras.Sequential([*layers, keras.layers.Flatten(), _head()])
    return model, _dataset(x, y, 64)


def transformer() -> tuple[Any, Any]:
    """Four blocks of attention, about 60 variables, batch 32 x 32 tokens."""
    random = np.random.default_rng(0)
    x = random.normal(size=(_ROWS, 32, 64)).astype(np.float32)
    y = random.integers(0, 10, _ROWS)
    inputs = keras.Input((32, 64))
    h = inputs
    for _ in range(4):
        a = keras.layers.MultiHeadAttention(4, 16)(h, h)
        h = keras.layers.LayerNormalization()(h + a)
        f = keras.layers.Dense(128, activation="gelu")(h)
        h = keras.layers.LayerNormalization()(h + keras.layers.Dense(64)(f))
    pooled = keras.layers.GlobalAveragePooling1D()(h)
    return keras.Model(inputs, _head()(pooled)), _dataset(x, y, 32)


def tiny() -> tuple[Any, Any]:
    """A step of half a millisecond: what is fixed shows here."""
    random = np.random.default_rng(0)
    x = random.normal(size=(_ROWS, 16)).astype(np.float32)
    y = random.integers(0, 10, _ROWS)
    hidden = keras.layers.Dense(32, activation="relu")
    model = keras.Sequential([keras.Input((16,)), hidden, _head()])
    return model, _dataset(x, y, 32)


def _head() -> Any:
    return keras.layers.Dense(10)


WORKLOADS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "transformer": transformer,
    "tiny": tiny,
}
