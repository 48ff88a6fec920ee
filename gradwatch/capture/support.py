"""What can be watched today; all else is refused before the first step."""

from __future__ import annotations

from typing import Any, NoReturn

import keras
import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx

from gradwatch.capture.optimizer import inner, optimizers
from gradwatch.errors import GradWatchError, UnsupportedError, expected
from gradwatch.policy import Policy

__all__ = [
    "OLDEST_KERAS",
    "is_custom",
    "own_train_step",
    "refuse_unsupported",
]

OLDEST_KERAS = (3, 12)
_NONE = type(tf.distribute.get_strategy())


def refuse_unsupported(
    model: Any, policy: Policy, own_loop: bool = False
) -> None:
    """Raises if training `model` cannot be watched correctly.

    Args:
        model: a `keras.Model`.
        policy: what a bad step means.
        own_loop: whether the user's own loop trains it, not `fit`.

    Raises:
        UnsupportedError: the mode is not supported, with the reason.
        GradWatchError: the model cannot be trained at all.
    """
    _check_keras()
    if own_loop and policy.rolls_back:
        raise UnsupportedError(
            expected(
                "on_nonfinite",
                "any other policy in a loop of your own",
                policy.name,
                "Use `fit`, with a `train_step` of your own if need be, or "
                '`on_nonfinite="skip"`.',
            )
        )
    _check_strategy(model, own_loop)
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


def _check_strategy(model: Any, own_loop: bool) -> None:
    strategy = model.distribute_strategy
    mirrored = isinstance(strategy, tf.distribute.MirroredStrategy)
    known = (_NONE, tf.distribute.OneDeviceStrategy)
    if not (mirrored or isinstance(strategy, known)):
        _refuse_strategy(
            "no strategy, `OneDeviceStrategy` or `MirroredStrategy`",
            type(strategy).__name__,
            "Train without gradwatch, or under one of these.",
        )
    if mirrored and own_loop:
        _refuse_strategy(
            "none in a loop of your own",
            "MirroredStrategy",
            "Use `fit`, with a `train_step` of your own if need be.",
        )
    steps = [inner(o).gradient_accumulation_steps for o in optimizers(model)]
    if mirrored and any(steps):
        _refuse_strategy(
            "no `gradient_accumulation_steps` under `MirroredStrategy`",
            f"{max(filter(None, steps))} of them",
            "Keras itself fails at this; use a larger batch instead.",
        )


def _refuse_strategy(what: str, received: str, do: str) -> NoReturn:
    raise UnsupportedError(expected("tf.distribute", what, received, do))


def is_custom(model: Any) -> bool:
    """Whether the model has a `train_step` of its own."""
    own = getattr(type(model).train_step, "__module__", "")
    return own != "keras.src.backend.tensorflow.trainer" or (
        "train_step" in vars(model)
    )


def own_train_step(model: Any) -> Any:
    """Returns `model.train_step` as plain Python.

    One that is a `tf.function` may have been traced before, where nothing can
    be measured any more; it is traced again inside of Keras' own.
    """
    train_step = model.train_step
    plain = getattr(train_step, "python_function", train_step)
    if plain is not train_step and train_step._autograph:
        enabled = ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED)
        return tf.__internal__.autograph.tf_convert(plain, enabled)
    return plain


def _check_step(model: Any) -> None:
    make = getattr(type(model).make_train_function, "__module__", "")
    if make != "keras.src.backend.tensorflow.trainer":
        raise UnsupportedError(
            expected(
                "make_train_function",
                "Keras' own",
                f"{type(model).__name__}.make_train_function",
                "Override `train_step` instead: gradwatch watches that.",
            )
        )
    if getattr(model.train_step, "_jit_compile", None):
        raise UnsupportedError(
            expected(
                "train_step",
                "a plain method",
                "a `tf.function` with `jit_compile=True`",
                "Remove the decorator and compile the model with "
                "`jit_compile=True`: Keras compiles the whole step then.",
            )
        )
