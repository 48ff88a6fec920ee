"""Models that make data: autoencoders with a prior, and adversaries."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.components import component
from gradwatch.testing.data import Data, digit_ids, moons
from gradwatch.testing.programs import dense_net, explained, fits
from gradwatch.testing.scenario import Program

__all__ = ["adversaries", "importance_weighted", "variational"]


class _Sampling(layers.Layer):
    """Draws a code and adds its distance from the prior to the loss."""

    def __init__(self, weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs: Any) -> Any:
        """Returns codes `[batch, n]` from means and log variances."""
        mean, log_variance = inputs
        kl = 0.5 * ops.sum(
            ops.exp(log_variance) + ops.square(mean) - 1 - log_variance, -1
        )
        kl = component("kl", ops.mean(kl), self.weight)
        self.add_loss(self.weight * kl)
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(0.5 * log_variance) * noise


def _reconstruction(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of pixels, summed over the image."""
    return 64.0 * keras.losses.binary_crossentropy(y_true, y_pred)


def variational(weight: float) -> Program:
    """Returns a variational autoencoder of the digits, with 8 codes.

    Args:
        weight: of the distance from the prior.
    """
    image = keras.Input((64,))
    hidden = layers.Dense(48, "relu", name="encoder")(image)
    mean = layers.Dense(8, name="mean")(hidden)
    log_variance = layers.Dense(8, name="log_variance")(hidden)
    code = _Sampling(weight, name="code")([mean, log_variance])
    hidden = layers.Dense(48, "relu", name="decoder")(code)
    pixels = layers.Dense(64, "sigmoid", name="pixels")(hidden)
    model, x = keras.Model(image, pixels, name="variational"), digit_ids().x
    adam, data = Adam(0.003), Data(x, x)
    return fits(
        model,
        data,
        explained(data),
        loss=_reconstruction,
        optimizer=adam,
        batch_size=64,
        epochs=12,
    )


class _ImportanceWeighted(keras.Model):
    """An autoencoder whose bound is made of several codes of each image."""

    def __init__(self, samples: int) -> None:
        super().__init__(name="importance_weighted")
        self.samples = samples
        self.encoder = dense_net(64, [48], 16)
        self.decoder = dense_net(8, [48], 64)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs: Any) -> Any:
        """Returns the reconstruction from the mean code."""
        mean, _ = ops.split(self.encoder(inputs), 2, -1)
        return ops.sigmoid(self.decoder(mean))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Minus the bound, whose terms are marked."""
        mean, log_variance = ops.split(self.encoder(x), 2, -1)
        shape = (ops.shape(x)[0], self.samples, 8)
        noise = keras.random.normal(shape, seed=self.seeds)
        code = mean[:, None] + ops.exp(0.5 * log_variance)[:, None] * noise
        score = self.decoder(ops.reshape(code, (-1, 8)))
        score = ops.reshape(score, (-1, self.samples, 64))
        fit = x[:, None] * score - ops.softplus(score)
        log_weight = ops.sum(fit, -1) - 0.5 * ops.sum(ops.square(code), -1)
        log_weight += 0.5 * ops.sum(
            ops.square(noise) + log_variance[:, None], -1
        )
        return -ops.mean(ops.logsumexp(log_weight, 1) - np.log(self.samples))


def importance_weighted(samples: int = 5) -> Program:
    """Returns an importance-weighted autoencoder of the digits."""
    x = digit_ids().x
    data, adam = Data(x, x), Adam(0.003)
    return fits(
        _ImportanceWeighted(samples),
        data,
        explained(data),
        loss=None,
        optimizer=adam,
        batch_size=64,
        epochs=12,
    )


class _Adversaries(keras.Model):
    """A generator of points and a critic, each with an optimizer."""

    def __init__(self, updated: bool) -> None:
        super().__init__(name="adversaries")
        self.updated = updated
        kind = keras.Sequential
        self.generator = dense_net(
            4, [32, 32], 2, kind=partial(kind, name="generator")
        )
        self.critic = dense_net(
            2,
            [32, 32],
            1,
            activation="leaky_relu",
            kind=partial(kind, name="critic"),
        )
        self.critic_optimizer = Adam(0.002, 0.5)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs: Any) -> Any:
        """Returns the points made of noise."""
        return self.generator(inputs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """The critic's turn, then the generator's."""
        import tensorflow as tf

        real = data
        noise = keras.random.normal((ops.shape(real)[0], 4), seed=self.seeds)
        with tf.GradientTape(persistent=True) as tape:
            fake = self.generator(noise, training=True)
            doubt = self.critic(fake, training=True)
            trust = self.critic(real, training=True)
            caught = ops.mean(ops.softplus(doubt) + ops.softplus(-trust))
            fooled = ops.mean(ops.softplus(-doubt))
        weights = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(caught, weights), weights)
        if self.updated:
            weights = self.generator.trainable_variables
            self.optimizer.apply(tape.gradient(fooled, weights), weights)
        return {"critic": caught, "generator": fooled}


def _far(a: Any, b: Any) -> float:
    """Mean distance between points of `a` and of `b`."""
    return float(np.linalg.norm(a[:, None] - b[None], axis=-1).mean())


def adversaries(updated: bool = True) -> Program:
    """Returns a GAN that learns two half moons.

    Its quality is the share of the energy distance to the data that it has
    made up for, from a single point in their middle.

    Args:
        updated: whether the step updates the generator.
    """
    real = moons().x

    def near(model: Any) -> float:
        noise = np.random.default_rng(0).normal(size=(500, 4)).astype("f4")
        made = model.predict(noise, verbose=0)
        inside = _far(real, real)
        energy = 2 * _far(made, real) - _far(made, made) - inside
        middle = real.mean(0, keepdims=True)
        return 1 - energy / (2 * _far(middle, real) - inside)

    return fits(
        _Adversaries(updated),
        (real, None),
        near,
        loss=None,
        optimizer=Adam(0.002, 0.5),
        epochs=18,
        batch_size=50,
    )
