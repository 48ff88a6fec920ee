"""The lowest loss that targets allow, and that of the best constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from gradwatch.capture.answers import answers

_DRAW = np.random.default_rng(0)
_NUMBERS = _DRAW.normal(3, 2, [40, 2])
_SHARES = _DRAW.uniform(size=[40, 2])
_ROWS = _DRAW.dirichlet([1, 2, 3], 40)
_IDS = _DRAW.integers(0, 3, 40)


def _entropy(p: NDArray[Any]) -> Any:
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)


def _bits(p: NDArray[Any]) -> Any:
    return _entropy(np.stack([p, 1 - p], -1))


def _best_constant(each: Callable[[Any], Any]) -> Any:
    """The lowest mean over a fine grid of constants, column by column."""
    grid = np.linspace(-4, 10, 1401)
    return np.mean([each(c).mean(0) for c in grid], -1).min()


@pytest.mark.parametrize(
    ("loss", "y", "lowest", "constant"),
    [
        ("mse", _NUMBERS, 0, _NUMBERS.var(0).mean()),
        (
            "mae",
            _NUMBERS[:, :1],
            0,
            _best_constant(lambda c: np.abs(_NUMBERS[:, :1] - c)),
        ),
        (
            "binary_crossentropy",
            _SHARES,
            _bits(_SHARES).mean(),
            _bits(_SHARES.mean(0)).mean(),
        ),
        (
            keras.losses.BinaryCrossentropy(True, label_smoothing=0.2),
            _SHARES,
            _bits(0.8 * _SHARES + 0.1).mean(),
            _bits(0.8 * _SHARES.mean(0) + 0.1).mean(),
        ),
        (
            "categorical_crossentropy",
            _ROWS,
            _entropy(_ROWS).mean(),
            _entropy(_ROWS.mean(0)),
        ),
        (
            keras.losses.CategoricalCrossentropy(label_smoothing=0.3),
            _ROWS,
            _entropy(0.7 * _ROWS + 0.1).mean(),
            _entropy(0.7 * _ROWS.mean(0) + 0.1),
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            _IDS,
            0,
            _entropy(np.bincount(_IDS) / 40),
        ),
        (
            "sparse_categorical_crossentropy",
            _IDS[:, np.newaxis],
            0,
            _entropy(np.bincount(_IDS) / 40),
        ),
    ],
)
@pytest.mark.parametrize("weight", [None, 3.0])
def test_of_known_losses(
    loss: Any, y: Any, lowest: float, constant: float, weight: float | None
) -> None:
    """Both are what numpy says, times the weight of the output."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    predictions = tf.zeros([40, 3] if "sparse" in str(loss) else y.shape)
    if hasattr(loss, "name") and "sparse" in loss.name:
        predictions = tf.zeros([40, 3])
    model.compile(loss=loss, loss_weights=weight)
    model.compute_loss(None, tf.constant(y), predictions)
    (known,) = model._compile_loss._flat_losses
    targets = tf.constant(y)
    found = answers(known.loss, known.loss_weights, targets, predictions)
    scale = 1 if weight is None else weight
    got = [float(value) for value in found.values()]
    assert got == pytest.approx([scale * lowest, scale * constant], abs=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.MeanSquaredError(reduction="sum"),
        keras.losses.SparseCategoricalCrossentropy(ignore_class=0),
        keras.losses.Hinge(),
    ],
)
def test_nothing_is_said_of_others(loss: Any) -> None:
    """What is no mean, leaves examples out or is not known has no bounds."""
    y = tf.zeros([4, 1])
    assert answers(loss, None, y, y) == {}


def test_nothing_is_said_where_predictions_are_masked() -> None:
    """A mask leaves examples out."""
    masked = keras.layers.Masking()(tf.ones([4, 3, 1]))
    y = tf.zeros([4, 3, 1])
    assert answers(keras.losses.MeanSquaredError(), None, y, masked) == {}
