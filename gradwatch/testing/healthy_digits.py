"""Healthy programs on the digits: ways to train one model."""

from __future__ import annotations

from typing import Any

import keras
from keras.optimizers import Adam

from gradwatch.testing.programs import (
    classify_digits,
    dense_digits,
    dense_net,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["HEALTHY"]

_LOSS = "sparse_categorical_crossentropy"


def _precision(kind: str) -> Program:
    policy = keras.dtype_policies.DTypePolicy(kind)
    model = dense_net(64, [64, 64], 10, last="softmax", dtype=policy)
    adam: Any = Adam(0.003)
    if kind == "mixed_float16":
        adam = keras.optimizers.LossScaleOptimizer(adam)
    return classify_digits(model, adam)


def _warm_up() -> Program:
    schedule = keras.optimizers.schedules.CosineDecay
    return dense_digits(
        sgd(schedule(0.0, 250, warmup_target=0.2, warmup_steps=100), 0.9)
    )


def _restarts() -> Program:
    schedule = keras.optimizers.schedules.CosineDecayRestarts
    return dense_digits(sgd(schedule(0.2, 60, 1.5, 1.0), 0.9), epochs=12)


def _accumulated() -> Program:
    adam = Adam(0.01, gradient_accumulation_steps=4)
    return dense_digits(adam, batch_size=32)


HEALTHY = (
    Scenario("digits_adam", "Adam as it comes.", dense_digits),
    Scenario(
        "digits_momentum", "Momentum.", lambda: dense_digits(sgd(0.05, 0.9))
    ),
    Scenario(
        "digits_slow",
        "Gradient descent, slow but fine.",
        lambda: dense_digits(sgd(0.02)),
        reaches=0.3,
    ),
    Scenario(
        "digits_batch_of_4",
        "Noisy: four images in a batch.",
        lambda: dense_digits(sgd(0.01), batch_size=4, epochs=2),
        reaches=0.6,
    ),
    Scenario(
        "digits_full_batch",
        "All images in each step.",
        lambda: dense_digits(sgd(0.5), batch_size=1797, epochs=60),
    ),
    Scenario("digits_rmsprop", "RMSprop.", lambda: dense_digits("rmsprop")),
    Scenario(
        "digits_adamw_large",
        "AdamW with a rate at the edge of too high.",
        lambda: dense_digits(keras.optimizers.AdamW(0.01)),
    ),
    Scenario(
        "digits_adagrad",
        "Adagrad.",
        lambda: dense_digits(keras.optimizers.Adagrad(0.05)),
    ),
    Scenario(
        "digits_lion",
        "Lion, whose updates are all of a size.",
        lambda: dense_digits(keras.optimizers.Lion(0.001)),
    ),
    Scenario(
        "digits_averaged",
        "A moving average of weights.",
        lambda: dense_digits(Adam(0.003, use_ema=True, ema_momentum=0.9)),
    ),
    Scenario("digits_warm_up", "A warm-up from 0, then a cosine.", _warm_up),
    Scenario("digits_restarts", "A cosine with restarts.", _restarts),
    Scenario(
        "digits_clipping_often",
        "A global clip norm that binds most of the time.",
        lambda: dense_digits(sgd(0.2, global_clipnorm=0.5)),
    ),
    Scenario(
        "digits_accumulated",
        "Gradients of four batches are collected.",
        _accumulated,
    ),
    Scenario(
        "digits_float16",
        "Mixed precision with loss scaling.",
        lambda: _precision("mixed_float16"),
    ),
    Scenario(
        "digits_bfloat16",
        "Mixed precision in bfloat16.",
        lambda: _precision("mixed_bfloat16"),
    ),
    Scenario(
        "digits_in_fives",
        "Five steps in each execution.",
        lambda: dense_digits(epochs=10, compiled={"steps_per_execution": 5}),
    ),
)
