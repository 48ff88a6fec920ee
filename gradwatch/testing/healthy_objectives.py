"""Healthy programs whose objective is none of Keras' own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.testing.data import Data
from gradwatch.testing.programs import Judge, dense_net, fits
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["HEALTHY"]


def _agrees(x: Any, truth: Any) -> Judge:
    """How predictions correlate with what they should say."""

    def judge(model: Any) -> float:
        said = np.asarray(model.predict(x, verbose=0)).reshape(truth.shape)
        return float(np.corrcoef(said.ravel(), truth.ravel())[0, 1])

    return judge


def _survival() -> Program:
    """Risks by Cox's partial likelihood, whose floor nobody knows."""
    random = np.random.default_rng(13)
    x = random.normal(size=(1024, 10)).astype(np.float32)
    risk = 0.7 * x @ random.normal(size=10)
    died, left = random.exponential(np.exp(-risk)), random.exponential(2, 1024)
    y = np.stack([np.minimum(died, left), died <= left], 1).astype(np.float32)

    def partial(y_true: Any, y_pred: Any) -> Any:
        time, event, score = y_true[:, 0], y_true[:, 1], y_pred[:, 0]
        there = ops.cast(time[None] >= time[:, None], "float32")
        others = ops.logsumexp(score[None] + ops.log(there + 1e-20), 1)
        return ops.sum((others - score) * event) / (ops.sum(event) + 1)

    model = dense_net(10, [24], 1, activation="tanh")
    data, judge = Data(x, y), _agrees(x, risk)
    options: Any = {"optimizer": Adam(0.003), "batch_size": 64, "epochs": 12}
    return fits(model, data, judge, loss=partial, **options)


def _ranking() -> Program:
    """Eight items of a list in order, by all their pairs."""
    random = np.random.default_rng(12)
    x = random.normal(size=(800, 8, 6)).astype(np.float32)
    worth = x @ random.normal(size=6)
    y = (worth + 0.5 * random.normal(size=(800, 8))).astype(np.float32)

    def pairs(y_true: Any, y_pred: Any) -> Any:
        better = ops.cast(y_true[:, :, None] > y_true[:, None], "float32")
        ahead = y_pred[:, :, None] - y_pred[:, None]
        return ops.sum(better * ops.softplus(-ahead), (1, 2)) / 28.0

    items = keras.Input((8, 6))
    score = layers.Dense(1)(layers.Dense(16, "relu")(items))
    model = keras.Model(items, layers.Flatten()(score))
    adam, judge = Adam(0.003), _agrees(x, worth)
    return fits(model, Data(x, y), judge, loss=pairs, optimizer=adam, epochs=10)


def _mixture() -> Program:
    """A curve that folds back, as a mixture of three normal densities."""
    random = np.random.default_rng(17)
    y = random.uniform(-1, 1, (1500, 1)).astype(np.float32)
    noise = 0.05 * random.normal(size=y.shape)
    x = (y + 0.3 * np.sin(6 * y) + noise).astype(np.float32)

    def surprise(y_true: Any, y_pred: Any) -> Any:
        weight, mean, width = ops.split(y_pred, 3, -1)
        width = ops.softplus(width) + 0.02
        inside = ops.log_softmax(weight) - ops.log(width)
        inside -= 0.5 * ops.square((y_true - mean) / width)
        return -ops.logsumexp(inside, -1)

    def judge(model: Any) -> float:
        said = model.predict(x, verbose=0)
        share = np.exp(said[:, :3] - said[:, :3].max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        mean = (share * said[:, 3:6]).sum(1)
        return float(np.corrcoef(mean, y[:, 0])[0, 1])

    model = dense_net(1, [32], 9, activation="tanh")
    options: Any = {"optimizer": Adam(0.005), "batch_size": 50, "epochs": 15}
    return fits(model, Data(x, y), judge, loss=surprise, **options)


class _Policy(keras.Model):
    """Learns by rewards which of four arms is the best."""

    def __init__(self) -> None:
        super().__init__(name="policy")
        self.scores = dense_net(5, [24], 4)
        self.seeds = keras.random.SeedGenerator(3)
        self.usual = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="usual"
        )

    def call(self, inputs: Any) -> Any:
        """Returns a score for each arm."""
        return self.scores(inputs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Makes what was better than usual more likely (REINFORCE)."""
        import tensorflow as tf

        x, best = data
        with tf.GradientTape() as tape:
            scores = self(x, training=True)
            arm = keras.random.categorical(scores, 1, seed=self.seeds)[:, 0]
            reward = ops.cast(
                ops.equal(ops.cast(arm, "int64"), best), "float32"
            )
            surprise = keras.losses.sparse_categorical_crossentropy(
                arm, scores, from_logits=True
            )
            better = ops.stop_gradient(reward - self.usual)
            loss = ops.mean(better * surprise)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.usual.assign(0.95 * self.usual + 0.05 * ops.mean(reward))
        return {"loss": loss, "reward": ops.mean(reward)}


def _bandit() -> Program:
    random = np.random.default_rng(14)
    x = random.normal(size=(2000, 5)).astype(np.float32)
    best = (x @ random.normal(size=(5, 4))).argmax(1)

    def judge(model: Any) -> float:
        said = np.asarray(model(x)).argmax(1)
        return float(((said == best).mean() - 0.25) / 0.75)

    options: Any = {"optimizer": Adam(0.01), "batch_size": 50, "epochs": 10}
    return fits(_Policy(), Data(x, best), judge, loss=None, **options)


HEALTHY = (
    Scenario("survival", "Risks by Cox's partial likelihood.", _survival),
    Scenario("ranking", "Items in order, by all pairs of a list.", _ranking),
    Scenario("mixture_density", "A curve that folds back.", _mixture),
    Scenario("bandit_policy", "Arms chosen by a policy's gradient.", _bandit),
)
