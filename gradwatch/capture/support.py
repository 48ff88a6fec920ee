"""What can be watched today; all else is refused before the first step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from gradwatch.errors import GradWatchError, UnsupportedError, expected

__all__ = ["OLDEST_KERAS", "refuse_unsupported"]

OLDEST_KERAS = (3, 12)


def refuse_unsupported(model: Any) -> None:
    """Raises if a `fit` of `model` cannot be watched correctly.

    Raises:
        UnsupportedError: the mode is not supported, with the reason.
        GradWatchError: the model cannot be trained at all.
    """
    _check_keras()
    _check_strategy(model)
    _check_step(model)
    if model.built and not model.trainable_variables:
        raise GradWatchError(
            expected(
                "model",
                "at least one trainable variable",
                model.name,
                "Set `trainable = True` on a layer and compile again.",
            )
        )


def _check_keras() -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UnsupportedError(
            expected(
                "KERAS_BACKEND",
                "the backend 'tensorflow'",
                backend,
                "Set the environment variable before Keras is imported, or "
                "train without gradwatch.",
            )
        )
    version = tuple(int(n) for n in keras.__version__.split(".")[:2])
    if version < OLDEST_KERAS:
        raise UnsupportedError(
            expected(
                "keras",
                f"version {'.'.join(map(str, OLDEST_KERAS))} or newer",
                keras.__version__,
                "Upgrade Keras.",
            )
        )


def _check_strategy(model: Any) -> None:
    strategy = model.distribute_strategy
    if strategy is not tf.distribute.get_strategy() or (
        tf.distribute.has_strategy()
    ):
        raise UnsupportedError(
            expected(
                "tf.distribute",
                "no distribution strategy",
                type(strategy).__name__,
                "Strategies are not watched yet; train without gradwatch or "
                "build the model outside of the strategy's scope.",
            )
        )


def _check_step(model: Any) -> None:
    own = getattr(type(model).train_step, "__module__", "")
    if own != "keras.src.backend.tensorflow.trainer" or (
        "train_step" in vars(model)
    ):
        raise UnsupportedError(
            expected(
                "train_step",
                "Keras' own `train_step`",
                f"{type(model).__name__}.train_step",
                "A custom `train_step` is not watched yet; override "
                "`compute_loss` instead where that is enough.",
            )
        )
