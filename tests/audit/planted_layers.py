"""Layers with one fault each: in a gradient, at a special place, in a scale."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.audit.records import Inputs, Planted

__all__ = ["LAYERS"]


@tf.custom_gradient
def _project(x: Any, kernel: Any) -> Any:
    def grad(upstream: Any) -> Any:
        rows = tf.cast(tf.shape(x)[0], x.dtype)
        d_kernel = tf.matmul(x, upstream, transpose_a=True) / rows
        return tf.matmul(upstream, kernel, transpose_b=True), d_kernel

    return tf.matmul(x, kernel), grad


class ManualDense(layers.Layer):
    """A Dense layer whose backward pass is written out."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), name="bias")

    def call(self, inputs: Any) -> Any:
        kernel = tf.convert_to_tensor(self.kernel)
        return _project(inputs, kernel) + self.bias


@tf.custom_gradient
def _leak(x: Any, slope: Any) -> Any:
    below = x < 0

    def grad(upstream: Any) -> Any:
        d_slope = tf.where(below, upstream, 0.0)
        return tf.where(below, slope * upstream, upstream), tf.reduce_sum(
            d_slope, axis=0
        )

    return tf.where(below, slope * x, x), grad


class LearnedLeak(layers.Layer):
    """ReLU that learns the slope of its negative side."""

    def build(self, input_shape: Any) -> None:
        self.slope = self.add_weight(
            name="slope",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(0.2),
        )

    def call(self, x: Any) -> Any:
        return _leak(x, tf.convert_to_tensor(self.slope))


class FeatureNorm(layers.Layer):
    """Normalises the features of each example, then scales and shifts."""

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.gamma = self.add_weight(shape=(width,), initializer="ones")
        self.beta = self.add_weight(shape=(width,), initializer="zeros")

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=0, keepdims=True)
        variance = ops.var(x, axis=0, keepdims=True)
        normed = (x - mean) / ops.sqrt(variance + 1e-3)
        return self.gamma * normed + self.beta


class QuantizedDense(layers.Layer):
    """Dense layer with kernels on a grid of eighths."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], 4), name="kernel")
        self.bias = self.add_weight(shape=(4,), name="bias")

    def call(self, inputs: Any) -> Any:
        kernel = ops.round(8.0 * self.kernel) / 8.0
        return ops.matmul(inputs, kernel) + self.bias


class BinaryDense(layers.Layer):
    """Dense layer with kernels of -1 and 1."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], 4), name="kernel")

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, ops.sign(self.kernel))


class HardRouting(layers.Layer):
    """Sends each example to the expert whose score is highest."""

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.router = self.add_weight(shape=(width, 3), name="router")
        self.experts = self.add_weight(shape=(3, width, 2), name="experts")

    def call(self, x: Any) -> Any:
        scores = ops.matmul(x, self.router)
        chosen = ops.one_hot(ops.argmax(scores, axis=-1), 3, dtype=x.dtype)
        return ops.einsum("be,bi,eio->bo", chosen, x, self.experts)


class KeptAttention(layers.Layer):
    """Attention over the steps that are to be kept."""

    def call(self, x: Any, keep: Any) -> Any:
        scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        scores = scores + ops.log(keep[:, None, :])
        return ops.matmul(ops.softmax(scores), x)


class RowSoftmaxAttention(layers.Layer):
    """Weights the features of each example by how they score."""

    def build(self, input_shape: Any) -> None:
        self.score = self.add_weight(shape=(input_shape[-1],) * 2)

    def call(self, x: Any) -> Any:
        weights = tf.nn.softmax(ops.matmul(x, self.score), axis=0)
        return weights * x


class HalfNorm(layers.Layer):
    """RMS normalisation that is to run in half precision."""

    def call(self, x: Any) -> Any:
        power = ops.mean(ops.square(x), axis=-1, keepdims=True)
        return x / ops.sqrt(power + 1e-8)


class Affine(layers.Layer):
    """x W + b, with kernels drawn from a normal distribution."""

    def __init__(self, deviation: float, units: int = 64) -> None:
        super().__init__()
        self.units = units
        self.start = keras.initializers.RandomNormal(stddev=deviation, seed=1)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=self.start
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.kernel) + self.bias


class TripledResidual(layers.Layer):
    """A residual block: the input and two branches of it."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1],) * 2)

    def call(self, x: Any) -> Any:
        branch = ops.relu(ops.matmul(x, self.kernel))
        return x + (x + branch) + (x + branch)


def scaled_rows() -> Any:
    """Returns a layer that scales each row to length 1."""
    return layers.Lambda(lambda x: x / ops.norm(x, axis=-1, keepdims=True))


WIDE: Inputs = {"x": ((16, 64), -1.0, 1.0)}
SEQUENCE: Inputs = {"x": ((2, 4, 3), -1.0, 1.0), "keep": ((2, 4), 0, 1)}
NOTHING_KEPT = {"x": np.ones((2, 4, 3)), "keep": np.zeros((2, 4))}
ZEROS = {"x": np.zeros((2, 4))}
LAYERS = (
    Planted(
        "layer_manual_dense",
        ManualDense,
        None,
        "wrong_gradient",
        "upstream, transpose_a=True) / rows",
    ),
    Planted(
        "layer_learned_leak",
        LearnedLeak,
        None,
        "wrong_gradient",
        "d_slope = tf.where(below, upstream, 0.0)",
    ),
    Planted(
        "layer_quantized_dense",
        QuantizedDense,
        None,
        "missing_gradient",
        "ops.round(8.0 * self.kernel)",
    ),
    Planted(
        "layer_binary_dense",
        BinaryDense,
        None,
        "zero_gradient",
        "ops.sign(self.kernel)",
    ),
    Planted(
        "layer_hard_routing",
        HardRouting,
        None,
        "missing_gradient",
        "ops.one_hot(ops.argmax(scores, axis=-1)",
    ),
    Planted(
        "layer_kept_attention",
        KeptAttention,
        SEQUENCE,
        "not_finite",
        "ops.log(keep[:, None, :])",
        NOTHING_KEPT,
    ),
    Planted(
        "layer_lambda",
        scaled_rows,
        None,
        "not_finite",
        "x / ops.norm(x, axis=-1, keepdims=True)",
        ZEROS,
    ),
    Planted("layer_feature_norm", FeatureNorm, None, "batch_mixed", ""),
    Planted("layer_row_softmax", RowSoftmaxAttention, None, "batch_mixed", ""),
    Planted(
        "layer_half_norm",
        lambda: HalfNorm(dtype="mixed_float16"),
        None,
        "swallowed_epsilon",
        "ops.sqrt(power + 1e-8)",
        ZEROS,
    ),
    Planted("layer_affine_one", lambda: Affine(1.0), WIDE, "exploding", ""),
    Planted("layer_affine_tiny", lambda: Affine(1e-3), WIDE, "vanishing", ""),
    Planted("layer_residual", TripledResidual, WIDE, "exploding", ""),
)
