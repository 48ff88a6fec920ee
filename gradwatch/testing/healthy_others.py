"""Healthy programs on sequences, texts and pairs, and models that make data."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    characters,
    digit_ids,
    first_symbol,
    snippets,
    waves,
)
from gradwatch.testing.generative import (
    adversaries,
    importance_weighted,
    variational,
)
from gradwatch.testing.programs import Judge, accuracy, explained, fits, sgd
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["HEALTHY"]

_IDS = "sparse_categorical_crossentropy"


def _texts(*stack: Any, optimizer: Any = None, epochs: int = 8) -> Program:
    """Which of four texts a snippet is from."""
    end = layers.Dense(4, "softmax", name="source")
    first = [keras.Input((60,)), layers.Embedding(128, 16)]
    model, data = keras.Sequential([*first, *stack, end]), snippets()
    return fits(
        model,
        data,
        accuracy(data),
        loss=_IDS,
        optimizer=optimizer or Adam(0.01),
        epochs=epochs,
    )


def _language(kind: Any) -> Program:
    """The next character."""
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Embedding(128, 16),
            kind(32, return_sequences=True),
            layers.Dense(128, "softmax"),
        ]
    )
    data, adam = characters(), Adam(0.01, clipnorm=1.0)
    return fits(
        model, data, accuracy(data), loss=_IDS, optimizer=adam, epochs=5
    )


def _waves(kind: Any, rate: Any, **options: Any) -> Program:
    memory = kind(16, name="memory", **options)
    stack = [keras.Input((24, 1)), memory, layers.Dense(1)]
    judge = explained(waves())
    return fits(
        keras.Sequential(stack),
        waves(),
        judge,
        loss="mse",
        optimizer=rate,
        epochs=12,
    )


def _memory() -> Program:
    """Nothing happens for long, then it has understood."""
    data = first_symbol(10)
    stack = [keras.Input((10,)), layers.Embedding(4, 8), layers.GRU(24)]
    model = keras.Sequential([*stack, layers.Dense(4, "softmax")])
    return fits(
        model, data, accuracy(data), loss=_IDS, optimizer=Adam(0.02), epochs=14
    )


def _attention() -> Program:
    """A small transformer with a warm-up."""
    ids = keras.Input((60,))
    x = layers.Embedding(128, 16)(ids)
    seen = layers.MultiHeadAttention(2, 8)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, seen]))
    inner = layers.Dense(32, "gelu")(x)
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(16)(inner)]))
    source = layers.Dense(4, "softmax")(layers.GlobalAveragePooling1D()(x))
    schedule = keras.optimizers.schedules.CosineDecay
    rate = schedule(0.0, 200, warmup_target=0.01, warmup_steps=60)
    adam = keras.optimizers.AdamW(rate, global_clipnorm=1.0)
    model, data = keras.Model(ids, source), snippets()
    return fits(
        model, data, accuracy(data), loss=_IDS, optimizer=adam, epochs=6
    )


def _nearest(x: Any, y: Any) -> Judge:
    """How often the nearest other embedding is of the same class."""

    def judge(model: Any) -> float:
        code = model.predict(x, verbose=0)
        near = ((code[:, None] - code[None]) ** 2).sum(-1)
        near[range(len(x)), range(len(x))] = near.max()
        return float(((y[near.argmin(1)] == y).mean() - 0.1) / 0.9)

    return judge


def _triplets(y_true: Any, y_pred: Any) -> Any:
    """Distance to the hardest friend and foe of the batch, with a margin."""
    far = ops.sum(ops.square(y_pred[:, None] - y_pred[None]), -1)
    same = ops.equal(y_true, ops.transpose(y_true))
    friend = ops.max(ops.where(same, far, 0.0), 1)
    foe = ops.min(ops.where(same, 1e9, far), 1)
    return ops.relu(friend - foe + 0.2)


def _embedded() -> Program:
    """Digits of a kind close together; triplets that are right count 0."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(64, "relu"),
            layers.Dense(8),
            layers.UnitNormalization(),
        ]
    )
    x, y = digit_ids()
    judge, adam = _nearest(x[:400], y[:400]), Adam(0.003)
    return fits(
        model,
        Data(x, y.reshape(-1, 1)),
        judge,
        loss=_triplets,
        optimizer=adam,
        batch_size=64,
        epochs=8,
    )


HEALTHY = (
    Scenario(
        "texts_mean",
        "A mean of embedded characters.",
        lambda: _texts(layers.GlobalAveragePooling1D(), epochs=12),
    ),
    Scenario(
        "texts_convolution",
        "Convolutions over embedded characters.",
        lambda: _texts(
            layers.Conv1D(32, 5, activation="relu"), layers.GlobalMaxPooling1D()
        ),
    ),
    Scenario("texts_attention", "A small transformer, warm-up.", _attention),
    Scenario(
        "language_gru",
        "The next character by a GRU, clipped.",
        lambda: _language(layers.GRU),
        reaches=0.2,
    ),
    Scenario(
        "waves_lstm",
        "The next value of a wave by an LSTM.",
        lambda: _waves(layers.LSTM, Adam(0.005)),
    ),
    Scenario(
        "waves_simple",
        "The same by a simple recurrent net and momentum.",
        lambda: _waves(layers.SimpleRNN, sgd(0.01, 0.9)),
    ),
    Scenario("symbol_memory", "A plateau, and then it falls.", _memory),
    Scenario("triplets", "An embedding by triplets, mostly 0.", _embedded),
    Scenario(
        "variational",
        "A variational autoencoder, terms marked.",
        lambda: variational(1.0),
        reaches=0.25,
    ),
    Scenario(
        "importance_weighted",
        "Five codes an image.",
        importance_weighted,
        reaches=0.3,
    ),
    Scenario("adversaries", "A GAN of two half moons.", adversaries),
)
