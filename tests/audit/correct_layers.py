"""Correct layers as people write them."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.audit.records import Correct, Inputs

__all__ = ["LAYERS"]


class RmsNorm(layers.Layer):
    """Divides by the root mean square of the features."""

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1],)
        self.scale = self.add_weight(shape=shape, initializer="ones")

    def call(self, x: Any) -> Any:
        power = ops.mean(ops.square(x), axis=-1, keepdims=True)
        return self.scale * x * ops.rsqrt(power + 1e-5)


class FeatureNorm(layers.Layer):
    """Normalises the features of each example, then scales and shifts."""

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.gamma = self.add_weight(shape=(width,), initializer="ones")
        self.beta = self.add_weight(shape=(width,), initializer="zeros")

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=-1, keepdims=True)
        variance = ops.var(x, axis=-1, keepdims=True)
        normed = (x - mean) / ops.sqrt(variance + 1e-3)
        return self.gamma * normed + self.beta


class PlainDense(layers.Layer):
    """x W + b."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, self.kernel) + self.bias


@tf.custom_gradient
def _project(x: Any, kernel: Any) -> Any:
    def grad(upstream: Any) -> Any:
        d_kernel = tf.matmul(x, upstream, transpose_a=True)
        return tf.matmul(upstream, kernel, transpose_b=True), d_kernel

    return tf.matmul(x, kernel), grad


class ManualDense(PlainDense):
    """A Dense layer whose backward pass is written out."""

    def call(self, inputs: Any) -> Any:
        kernel = tf.convert_to_tensor(self.kernel)
        return _project(inputs, kernel) + self.bias


class SelfAttention(layers.Layer):
    """One head of scaled dot-product attention."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.query, self.key, self.value = (layers.Dense(width) for _ in "qkv")

    def build(self, input_shape: Any) -> None:
        for part in (self.query, self.key, self.value):
            part.build(input_shape)

    def call(self, x: Any) -> Any:
        key = ops.transpose(self.key(x), (0, 2, 1))
        scores = ops.matmul(self.query(x), key) / math.sqrt(self.width)
        return ops.matmul(ops.softmax(scores, axis=-1), self.value(x))


class KeptAttention(layers.Layer):
    """Attention over the steps that are to be kept."""

    def call(self, x: Any, keep: Any) -> Any:
        scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        scores = scores - 1e9 * (1.0 - keep[:, None, :])
        return ops.matmul(ops.softmax(scores), x)


class Film(layers.Layer):
    """Scales and shifts features by what a condition says."""

    def build(self, features_shape: Any, condition_shape: Any) -> None:
        self.modulation = layers.Dense(2 * features_shape[-1])
        self.modulation.build(condition_shape)

    def call(self, features: Any, condition: Any) -> Any:
        scale, shift = ops.split(self.modulation(condition), 2, axis=-1)
        return features * (1.0 + scale) + shift


class GatedUnit(layers.Layer):
    """Gated linear unit."""

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1], 4)
        self.value = self.add_weight(shape=shape)
        self.gate = self.add_weight(shape=shape)

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.value) * ops.sigmoid(ops.matmul(x, self.gate))


class Highway(layers.Layer):
    """Carries the input past a transformation, as a gate says."""

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.inner, self.carry = layers.Dense(width), layers.Dense(width)
        self.inner.build(input_shape)
        self.carry.build(input_shape)

    def call(self, x: Any) -> Any:
        carry = tf.sigmoid(self.carry(x))
        return carry * x + (1.0 - carry) * tf.nn.relu(self.inner(x))


class ScaledResidual(layers.Layer):
    """A residual branch whose scale is learnt, from a small one."""

    def build(self, input_shape: Any) -> None:
        start = keras.initializers.Constant(0.1)
        self.scale = self.add_weight(shape=(), initializer=start)
        self.kernel = self.add_weight(shape=(input_shape[-1],) * 2)

    def call(self, x: Any) -> Any:
        return x + self.scale * ops.relu(ops.matmul(x, self.kernel))


class OwnDropout(layers.Layer):
    """Dropout by hand; nothing at inference."""

    def __init__(self, rate: float = 0.3) -> None:
        super().__init__()
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(7)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        draw = keras.random.uniform(ops.shape(x), seed=self.seed_generator)
        keep = ops.cast(draw >= self.rate, x.dtype)
        return x * keep / (1.0 - self.rate)


class Sampling(layers.Layer):
    """Draws from a Gaussian: the reparameterization of a VAE."""

    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(7)

    def call(self, mean: Any, log_variance: Any) -> Any:
        noise = keras.random.normal(
            ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator
        )
        return mean + ops.exp(0.5 * log_variance) * noise


class SqueezeExcite(layers.Layer):
    """Channels of an image weighted by what all of it shows."""

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.squeeze = layers.Dense(2, activation="relu")
        self.excite = layers.Dense(channels, activation="sigmoid")
        self.squeeze.build((None, channels))
        self.excite.build((None, 2))

    def call(self, image: Any) -> Any:
        weights = self.excite(self.squeeze(ops.mean(image, axis=(1, 2))))
        return image * weights[:, None, None, :]


class Lookup(layers.Layer):
    """Vectors of words."""

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(shape=(10, 4), initializer="uniform")

    def call(self, words: Any) -> Any:
        return ops.take(self.table, ops.cast(words, "int32"), axis=0)


class LearntSwish(layers.Layer):
    """Swish that learns how steep its gate is."""

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1],)
        self.beta = self.add_weight(shape=shape, initializer="ones")

    def call(self, x: Any) -> Any:
        return x * ops.sigmoid(self.beta * x)


def scaled_rows() -> Any:
    """Returns a layer that scales each row to length 1."""
    return layers.Lambda(
        lambda x: x * ops.rsqrt(ops.sum(x * x, -1, keepdims=True) + 1e-6)
    )


STEPS: Inputs = {"x": ((2, 4, 3), -1.0, 1.0)}
KEPT: Inputs = {"x": ((2, 4, 3), -1.0, 1.0), "keep": ((2, 4), 0, 1)}
FILM: Inputs = {
    "features": ((8, 6), -1.0, 1.0),
    "condition": ((8, 3), -1.0, 1.0),
}
LATENT: Inputs = {
    "mean": ((8, 3), -2.0, 2.0),
    "log_variance": ((8, 3), -4.0, 4.0),
}
IMAGE: Inputs = {"image": ((2, 4, 4, 3), 0.0, 1.0)}
WORDS: Inputs = {"words": ((3, 5), 0, 9)}


def _fine(thing: Any, inputs: Inputs | None = None) -> Correct:
    make = thing if isinstance(thing, type) else lambda: thing
    return Correct(f"layer_{thing.__name__}", make, inputs)


LAYERS = (
    _fine(RmsNorm),
    _fine(FeatureNorm),
    _fine(PlainDense),
    _fine(ManualDense),
    _fine(SelfAttention, STEPS),
    _fine(KeptAttention, KEPT),
    _fine(Film, FILM),
    _fine(GatedUnit),
    _fine(Highway),
    _fine(ScaledResidual),
    _fine(OwnDropout),
    _fine(Sampling, LATENT),
    _fine(SqueezeExcite, IMAGE),
    _fine(Lookup, WORDS),
    _fine(LearntSwish),
    Correct("layer_lambda", scaled_rows, None),
)
