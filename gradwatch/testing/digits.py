"""Handwritten digits: a healthy run and its twin whose loss is not safe.

The data are scikit-learn's own 1,797 images of 8 x 8 pixels; nothing is
downloaded.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = ["digits", "digits_model", "distance", "distance_model"]


def digits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns images and targets.

    Returns:
        float32 `[1797, 64]` in [0, 1] and one-hot float32 `[1797, 10]`.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.data / 16.0).astype(np.float32)
    return images, np.eye(10, dtype=np.float32)[data.target]


def distance(y_true: Any, y_pred: Any) -> Any:
    """The distance of each prediction to its target: a home-made loss.

    Its derivative is infinite at 0. As long as the model is wrong about every
    image this does not show; the first image of which it is entirely sure, in
    float32, makes every gradient NaN while the loss is as fine as can be.

    Args:
        y_true: float `[batch, classes]`.
        y_pred: float `[batch, classes]`.

    Returns:
        float `[batch]`.
    """
    return keras.ops.sqrt(
        keras.ops.sum(keras.ops.square(y_true - y_pred), axis=-1)
    )


def digits_model(loss: Any, seed: int = 0) -> Any:
    """Returns a compiled classifier of `digits()`: 64-128-128-10, softmax.

    Args:
        loss: anything that `compile` takes.
        seed: of everything that is random in Keras.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu", name="hidden_1"),
            keras.layers.Dense(128, activation="relu", name="hidden_2"),
            keras.layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="digits",
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"]
    )
    return model


def distance_model() -> Any:
    """Returns the model that turns NaN: `digits_model` with `distance`."""
    return digits_model(distance)
