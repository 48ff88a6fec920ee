"""Steps that are not finite, each for a reason that is known.

The line to be named ends with `# here`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from gradwatch import component

__all__ = ["ORIGINS", "Case"]

BATCH = 8


class Case(NamedTuple):
    """A step and what its autopsy has to say.

    Attributes:
        make: returns the model, before the step, and the batch.
        operation: what is to be named, one of these.
        phase: see `Autopsy`.
        verdict: see `Autopsy`.
        line: whether there is a line of this file to be named.
        layer: the end of the layer's path.
        only: the only mode in which it happens, `""` = both.
    """

    make: Callable[[], tuple[Any, Any]]
    operation: tuple[str, ...]
    phase: str = "forward"
    verdict: str = "model"
    line: bool = True
    layer: str = ""
    only: str = ""


def _batch(width: int = 4, targets: int = 2) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH, width)).astype(np.float32)
    return x, np.zeros((BATCH, targets), np.float32)


def _model(
    loss: Any,
    *between: Any,
    head: str | None = None,
    shape: tuple[int, ...] = (4,),
    zero: bool = False,
) -> Any:
    """Dense layers; `zero` lets the last one answer 0 to everything."""
    start = "zeros" if zero else "glorot_uniform"
    stack = [keras.Input(shape), layers.Dense(6, name="first"), *between]
    stack.append(layers.Dense(2, head, kernel_initializer=start, name="last"))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(stack)
    model.compile("sgd", loss)
    return model


def _of_loss(loss: Any, **options: Any) -> Callable[[], tuple[Any, Any]]:
    return lambda: (_model(loss, **options), _batch())


def _of_layer(make: Callable[[], Any]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (_model("mse", make()), _batch())


def distance(y: Any, p: Any) -> Any:
    """The root of a sum of squares: no derivative at 0."""
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum((y - p) ** 2, -1)))  # here


def norm(y: Any, p: Any) -> Any:
    """The same by `tf.norm`."""
    return tf.reduce_mean(tf.norm(y - p, axis=-1))  # here


def keras_norm(y: Any, p: Any) -> Any:
    """The same by `keras.ops`."""
    return ops.mean(ops.sqrt(ops.sum(ops.square(y - p), -1)))  # here


def likelihood(y: Any, p: Any) -> Any:
    """Logarithm of a probability that is 0."""
    return -tf.reduce_mean(tf.math.log(p))  # here


def swallowed(y: Any, p: Any) -> Any:
    """An epsilon that float32 does not hold."""
    theta = tf.sigmoid(p + 20.0)
    return -tf.reduce_mean(tf.math.log(1.0 + 1e-18 - theta))  # here


def distances(y: Any, p: Any) -> Any:
    """`logsumexp` of logarithms of 0."""
    logs = 2 * tf.math.log(tf.abs(y - p))  # here
    return tf.reduce_mean(tf.exp(tf.reduce_logsumexp(logs, -1)))


def chosen_root(y: Any, p: Any) -> Any:
    """A `where` that does not choose the root at 0."""
    return tf.reduce_mean(tf.where(p > 0, tf.sqrt(p), 0.0))  # here


def chosen_quotient(y: Any, p: Any) -> Any:
    """A `where` that does not choose the quotient at 0."""
    return tf.reduce_mean(tf.where(p != 0, 1.0 / p, 0.0))  # here


def quotient(y: Any, p: Any) -> Any:
    """Something over nothing."""
    return tf.reduce_mean((1.0 + p) / y)  # here


def empty_mean(y: Any, p: Any) -> Any:
    """The mean of what a mask leaves: nothing."""
    mask = tf.cast(y > 0.5, p.dtype)
    return tf.reduce_sum(mask * p) / tf.reduce_sum(mask)  # here


def growing(y: Any, p: Any) -> Any:
    """An exponential that is too large in every dtype."""
    return tf.reduce_mean(tf.exp(p + 1000.0))  # here


def large(y: Any, p: Any) -> Any:
    """An exponential that float32 is too small for."""
    return tf.reduce_mean(tf.exp(p + 100.0))  # here


def squares(y: Any, p: Any) -> Any:
    """A square that float32 is too small for."""
    return tf.reduce_mean(tf.square(p + 1e25))  # here


def power(y: Any, p: Any) -> Any:
    """A power below 1 at 0."""
    return tf.reduce_mean(tf.pow(tf.abs(p), 0.5))  # here


def real_power(y: Any, p: Any) -> Any:
    """A power of a negative number."""
    return tf.reduce_mean(tf.pow(p - 1.0, 0.5))  # here


def angle(y: Any, p: Any) -> Any:
    """The angle between equal vectors."""
    return tf.reduce_mean(tf.acos(p + 1.0))  # here


def marked(y: Any, p: Any) -> Any:
    """Two terms, of which one is not finite."""
    fine = component("fine", tf.reduce_mean(tf.square(p)))
    each = p * tf.math.log(p)  # here
    return fine + component("entropy", tf.reduce_mean(each))


@tf.function
def entropy(p: Any) -> Any:
    """A function of its own."""
    return tf.math.log(p)  # here


def inner(y: Any, p: Any) -> Any:
    """What is not finite is so in a function of its own."""
    return tf.reduce_mean(entropy(p))


@tf.custom_gradient
def through(x: Any) -> Any:
    """A derivative of the user's own."""

    def back(upstream: Any) -> Any:
        return upstream / x  # here

    return x, back


def custom(y: Any, p: Any) -> Any:
    """A custom gradient that divides by 0."""
    return tf.reduce_mean(through(p))


class Reciprocal(layers.Layer):
    """Divides by what may be 0."""

    def call(self, x: Any) -> Any:
        """Keras: the layer's output."""
        return 1.0 / tf.nn.relu(x)  # here


class Standard(layers.Layer):
    """Divides by a standard deviation of 0."""

    def call(self, x: Any) -> Any:
        """Keras: the layer's output."""
        x = x * 0.0
        deviation = tf.math.reduce_std(x, axis=-1, keepdims=True)  # here
        return x / (deviation + 1e-3)


class Attention(layers.Layer):
    """A softmax of rows of which one is masked throughout."""

    def call(self, x: Any) -> Any:
        """Keras: the layer's output."""
        allowed = tf.range(BATCH)[:, None] > 0
        scores = tf.where(allowed, x, -np.inf)
        return tf.nn.softmax(scores)  # here


class LogMask(layers.Layer):
    """The same by the logarithm of a mask."""

    def call(self, x: Any) -> Any:
        """Keras: the layer's output."""
        mask = tf.cast(tf.range(BATCH)[:, None] > 0, tf.float32)
        return tf.nn.softmax(x + tf.math.log(mask))  # here


class HealthyMask(layers.Layer):
    """A mask of -inf as it should be, and then a root."""

    def call(self, x: Any) -> Any:
        """Keras: the layer's output."""
        scores = tf.where(tf.range(6) > 2, x, -np.inf)
        weights = tf.nn.softmax(scores)
        return tf.sqrt(weights)  # here


class Scaled(layers.Layer):
    """Weights that a loop in a function reads."""

    def build(self, shape: Any) -> None:
        """Keras: makes the weights."""
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones")

    @tf.function
    def call(self, x: Any) -> Any:
        """Keras: the layer's output, x times e**104 in 8 turns."""

        def going(i: Any, x: Any) -> Any:
            return i < 8

        def turn(i: Any, x: Any) -> Any:
            return i + 1, x * self.w * tf.exp(13.0)  # here

        return tf.while_loop(going, turn, (0, x), maximum_iterations=8)[1]


class Compiled(layers.Layer):
    """Weights that a function reads which XLA compiles."""

    def build(self, shape: Any) -> None:
        """Keras: makes the weights."""
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones")

    @tf.function(jit_compile=True)
    def call(self, x: Any) -> Any:
        """Keras: the layer's output, x times e**104."""
        return x * 1e30 * self.w * 1e15  # here


class Wild(layers.Layer):
    """Weights of 1e30 and inputs of 1e30."""

    def build(self, shape: Any) -> None:
        """Keras: makes the weights."""
        self.w = self.add_weight(shape=(6, 6), initializer="ones")

    def call(self, x: Any) -> Any:
        """Keras: the layer's output."""
        return tf.matmul((x + 10.0) * 1e30, self.w * 1e30)  # here


class Counting(layers.Layer):
    """A cell whose logarithm meets 0 at the sixth turn."""

    state_size = output_size = 6

    def build(self, shape: Any) -> None:
        """Keras: makes the weights."""
        self.w = self.add_weight(shape=(6, 6))

    def call(self, x: Any, states: Any) -> Any:
        """Keras: one turn."""
        left = states[0] + 1.0
        return tf.math.log(6.0 - left) @ self.w, [left]  # here


def _recurrent() -> tuple[Any, Any]:
    model = _model("mse", layers.RNN(Counting(), name="rnn"), shape=(9, 4))
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH, 9, 4)).astype(np.float32)
    return model, (x, np.zeros((BATCH, 2), np.float32))


def _embedding() -> tuple[Any, Any]:
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(5, 4, embeddings_initializer="zeros", name="ids"),
            layers.Lambda(lambda x: tf.norm(x, axis=-1)),  # here
            layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    ids = np.zeros((BATCH, 3), np.int32)
    return model, (ids, np.ones((BATCH, 2), np.float32))


def _bad(where: int) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        batch = _batch()
        batch[where][3, 1] = np.nan
        return _model("mse"), batch

    return make


def _lost() -> tuple[Any, Any]:
    model = _model("mse")
    kernel = model.layers[0].kernel.numpy()
    kernel[0, 0] = np.inf
    model.layers[0].kernel.assign(kernel)
    return model, _batch()


def _half() -> tuple[Any, Any]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, dtype="mixed_float16", name="first"),
            layers.Dense(2, dtype="mixed_float16", name="last"),
        ]
    )
    model.compile("sgd", "mse")
    x, y = _batch()
    return model, (x * 1e5, y)


ORIGINS = {
    "distance": Case(_of_loss(distance, zero=True), ("Sqrt",), "backward"),
    "norm": Case(_of_loss(norm, zero=True), ("Sqrt",), "backward"),
    "keras norm": Case(_of_loss(keras_norm, zero=True), ("Sqrt",), "backward"),
    "likelihood": Case(_of_loss(likelihood, zero=True), ("Log",)),
    "swallowed": Case(_of_loss(swallowed), ("Log",), verdict="precision"),
    "distances": Case(_of_loss(distances, zero=True), ("Log",)),
    "chosen root": Case(
        _of_loss(chosen_root, zero=True), ("Sqrt",), "backward", only="xla"
    ),
    "chosen quotient": Case(
        _of_loss(chosen_quotient, zero=True), ("RealDiv",), "backward"
    ),
    "quotient": Case(_of_loss(quotient), ("RealDiv",)),
    "empty mean": Case(_of_loss(empty_mean), ("RealDiv",)),
    "growing": Case(_of_loss(growing), ("Exp",)),
    "large": Case(_of_loss(large), ("Exp",), verdict="precision"),
    "squares": Case(_of_loss(squares), ("Square",), verdict="precision"),
    "power": Case(_of_loss(power, zero=True), ("Pow",), "backward"),
    "real power": Case(_of_loss(real_power, zero=True), ("Pow",)),
    "angle": Case(_of_loss(angle, zero=True), ("Acos",), "backward"),
    "marked": Case(_of_loss(marked, zero=True), ("Log",)),
    "inner function": Case(_of_loss(inner, zero=True), ("Log",)),
    "custom gradient": Case(
        _of_loss(custom, zero=True), ("IdentityN",), "backward"
    ),
    "reciprocal": Case(_of_layer(Reciprocal), ("RealDiv",), layer="reciprocal"),
    "standard": Case(
        _of_layer(Standard),
        ("Sqrt",),
        "backward",
        layer="standard",
        only="xla",
    ),
    "attention": Case(_of_layer(Attention), ("Softmax",), layer="attention"),
    "log of a mask": Case(_of_layer(LogMask), ("Softmax",), layer="log_mask"),
    "healthy mask": Case(
        _of_layer(HealthyMask), ("Sqrt",), "backward", layer="healthy_mask"
    ),
    "wild": Case(
        _of_layer(Wild), ("MatMul",), verdict="precision", layer="wild"
    ),
    "scaled": Case(
        _of_layer(Scaled), ("Mul",), verdict="precision", layer="scaled"
    ),
    "compiled": Case(
        _of_layer(Compiled), ("Mul",), verdict="precision", layer="compiled"
    ),
    "recurrent": Case(_recurrent, ("Log",), layer="rnn"),
    "embedding": Case(_embedding, ("Sqrt",), "backward", layer="lambda"),
    "inputs": Case(_bad(0), ("",), "data", "data", line=False),
    "targets": Case(_bad(1), ("",), "data", "data", line=False),
    "weights": Case(
        _lost,
        ("ReadVariableOp",),
        "update",
        "optimizer",
        line=False,
        layer="first",
    ),
    "half precision": Case(
        _half,
        ("Cast", "MatMul"),
        verdict="precision",
        line=False,
    ),
}
"""Each by its name."""
