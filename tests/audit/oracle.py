"""Gradients by central differences in float64, independent of the audit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tests.audit.records import Inputs

__all__ = ["Subject", "arguments", "disagreement", "precision", "sample"]

SHAPE = (8, 4)
"""What code gets whose user told nothing."""

Arrays = dict[str, NDArray[Any]]


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Keras computes in this type."""
    before = keras.config.floatx()
    if before == dtype:
        yield
        return
    keras.config.set_floatx(dtype)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def arguments(target: Any) -> tuple[str, ...]:
    """Names of the arguments that have no default, in order."""
    target = getattr(target, "function", target)  # of a Lambda
    inner = isinstance(target, keras.layers.Layer | keras.losses.Loss)
    own = "__call__" if "__call__" in vars(type(target)) else "call"
    function = getattr(target, own) if inner else target
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    found = signature.parameters.values()
    return tuple(p.name for p in found if p.default is empty)


def sample(names: tuple[str, ...], inputs: Inputs | None, seed: int) -> Arrays:
    """Plausible float64 arguments: normal, or spread over what inputs say."""
    random = np.random.default_rng(seed)
    if inputs is None:
        return {name: random.normal(size=SHAPE) for name in names}
    drawn = {}
    for name in names:
        shape, low, high = inputs[name]
        if isinstance(low, int) and isinstance(high, int):
            drawn[name] = random.integers(low, high + 1, shape).astype(float)
        else:
            drawn[name] = random.uniform(low, high, shape)
    return drawn


class Subject:
    """A piece of code, made once in one precision, and called with arrays."""

    def __init__(self, make: Callable[[], Any], dtype: str) -> None:
        self.dtype = dtype
        with precision(dtype):
            self.target = make()
        self.names = arguments(self.target)

    def call(self, values: Arrays) -> list[Any]:
        """Returns the float results, as tensors."""
        return self.run(
            [tf.constant(values[n], self.dtype) for n in self.names]
        )

    def run(self, tensors: list[Any]) -> list[Any]:
        """The same of tensors, in the order of the arguments.

        What is drawn at random is the same each time.
        """
        seeds = getattr(self.target, "seed_generator", None)
        if seeds is not None:
            seeds.state.assign([7, 7])
        with precision(self.dtype):
            return tf.nest.flatten(self.target(*tensors))

    @property
    def weights(self) -> list[Any]:
        """Variables that training would move."""
        return list(getattr(self.target, "trainable_variables", []))

    def total(self, values: Arrays, upstream: list[Any]) -> float:
        """Sum of the results, weighted by their upstream gradients."""
        parts = zip(self.call(values), upstream, strict=True)
        return float(sum(np.sum(np.float64(y) * u) for y, u in parts))

    def gradients(
        self,
        values: Arrays,
        upstream: list[Any] | None = None,
        xla: bool = False,
    ) -> dict[str, NDArray[Any] | None]:
        """Gradients by name of argument or variable; None = no connection.

        Args:
            values: the arguments.
            upstream: the gradient of each result; None = ones.
            xla: whether XLA compiles both passes.
        """
        tensors = [tf.constant(values[n], self.dtype) for n in self.names]
        if not getattr(self.target, "built", True):
            self.run(tensors)

        def both() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                results = self.run(tensors)
            sources = [*tensors, *(w.value for w in self.weights)]
            return tape.gradient(results, sources, _typed(results, upstream))

        found = tf.function(both, jit_compile=True)() if xla else both()
        names = [*self.names, *(w.path for w in self.weights)]
        arrays = [None if g is None else _dense(g) for g in found]
        return dict(zip(names, arrays, strict=True))


def _typed(results: list[Any], upstream: list[Any] | None) -> Any:
    if upstream is None:
        return None
    return [tf.constant(u, y.dtype) for y, u in zip(results, upstream)]


def _dense(gradient: Any) -> NDArray[Any]:
    return np.asarray(tf.convert_to_tensor(gradient), np.float64)


def _moved(
    subject: Subject,
    values: Arrays,
    name: str,
    step: NDArray[Any],
    up: list[Any],
) -> float:
    """Total where one argument or variable has been moved by a step."""
    if name in values:
        return subject.total({**values, name: values[name] + step}, up)
    (variable,) = (w for w in subject.weights if w.path == name)
    start = np.asarray(variable)
    variable.assign(start + step)
    total = subject.total(values, up)
    variable.assign(start)
    return total


def disagreement(
    subject: Subject, values: Arrays, still: frozenset[str], seed: int = 77
) -> dict[str, float]:
    """How far gradients are from central differences along random directions.

    The upstream gradient is random too: sums hide errors.

    Args:
        subject: the code.
        values: the place.
        still: arguments that are not differentiated (labels, masks).
        seed: of upstream and directions.

    Returns:
        Relative error by argument or variable: 0 = equal, 1 = unrelated.
    """
    random = np.random.default_rng(seed)
    single = subject.dtype == "float32"
    size, width = (1e-2, 2) if single else (1e-6, 4)
    up = [random.normal(size=y.shape) for y in subject.call(values)]
    errors = {}
    for name, slope in subject.gradients(values, up).items():
        if name in still:
            continue
        gaps, sizes = [], []
        for _ in range(width):
            shape = values[name].shape if name in values else None
            shape = (
                slope.shape if shape is None and slope is not None else shape
            )
            way = random.normal(size=shape)
            ahead = _moved(subject, values, name, size * way, up)
            behind = _moved(subject, values, name, -size * way, up)
            numeric = (ahead - behind) / (2.0 * size)
            told = 0.0 if slope is None else float(np.sum(slope * way))
            gaps.append(abs(numeric - told))
            sizes.append(max(abs(numeric), abs(told)))
        errors[name] = max(gaps) / (max(sizes) + 1e-4)
    return errors
