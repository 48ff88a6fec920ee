"""The models and data that are measured. Without gradwatch: see `memory.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["WORKLOADS", "compiled", "deep"]

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


def embedding() -> tuple[Any, Any]:
    """A table of 200,000 x 64, batch 64 x 32 ids: a sparse gradient."""
    random = np.random.default_rng(0)
    x = random.integers(0, 200_000, (_ROWS, 32))
    y = random.integers(0, 10, _ROWS)
    words = keras.layers.Embedding(200_000, 64)
    pool = keras.layers.GlobalAveragePooling1D()
    ids = keras.Input((32,), dtype="int64")
    model = keras.Sequential([ids, words, pool, _head()])
    return model, _dataset(x, y, 64)


def deep(variables: int) -> tuple[Any, Any]:
    """Many small dense layers, which hand gradients on as they are.

    Args:
        variables: how many the model shall have, an even number.
    """
    random = np.random.default_rng(0)
    x = random.normal(size=(_ROWS, 16)).astype(np.float32)
    y = random.integers(0, 10, _ROWS)
    layers = [
        keras.layers.Dense(16, kernel_initializer="orthogonal")
        for _ in range(variables // 2 - 1)
    ]
    model = keras.Sequential([keras.Input((16,)), *layers, _head()])
    return model, _dataset(x, y, 32)


def compiled(model: Any, jit: bool = False, learning_rate: float = 1e-3) -> Any:
    """Compiles a workload's model, with Adam, and returns it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(learning_rate)
    model.compile(optimizer, loss, jit_compile=jit)
    return model


def _head() -> Any:
    return keras.layers.Dense(10)


WORKLOADS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "transformer": transformer,
    "tiny": tiny,
    "embedding": embedding,
}
