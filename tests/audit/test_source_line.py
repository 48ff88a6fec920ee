"""The line that a finding names: where the fault is written, marked `HERE`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from gradwatch import audit


@tf.custom_gradient
def _doubled(x: Any) -> Any:
    return 2.0 * x, lambda upstream: 2.0 * upstream


@tf.custom_gradient
def _cubed(x: Any) -> Any:
    def grad(upstream: Any) -> Any:
        slope = 2.0 * tf.square(x)  # HERE
        return upstream * slope

    return x**3, grad


def second_of_two(x: Any) -> Any:
    """The backward pass that is further from the input is the wrong one."""
    return _cubed(_doubled(x))


def first_of_two(x: Any) -> Any:
    """The one that is nearer to it."""
    return _doubled(_cubed(x))


@tf.custom_gradient
def turned(x: Any) -> Any:
    """The sign is lost at the very end."""

    def grad(upstream: Any) -> Any:
        slope = upstream * tf.cos(x)
        return -slope  # HERE

    return tf.sin(x), grad


@tf.custom_gradient
def added(a: Any, b: Any, c: Any) -> Any:
    """Two gradients of three change places."""

    def grad(upstream: Any) -> Any:
        by_a = upstream * b * c
        by_b = upstream * a * c
        by_c = upstream * a * b
        return by_a, by_c, by_b  # HERE

    return a * b * c, grad


def second_stop(x: Any) -> Any:
    """A constant, and a part that is none."""
    scale = tf.stop_gradient(tf.ones_like(x))
    offset = x * tf.stop_gradient(tf.exp(x))  # HERE
    return scale * offset


def in_a_branch(x: Any) -> Any:
    """What kills the gradient stands in the middle of much else."""
    wide = tf.square(x) * 1e5 + 900.0
    gone = tf.tanh(wide)  # HERE
    return tf.reduce_sum(gone * tf.cos(0.0 * x + 1.0), -1)


def product(x: Any) -> Any:
    """TensorFlow's own derivative, wrong where a factor is 0."""
    powers = tf.math.cumprod(tf.sin(x), axis=-1)  # HERE
    return tf.exp(0.1 * powers)


def masked(x: Any) -> Any:
    """A mask that was computed, and hides everything."""
    keep = tf.cast(tf.range(4) < 0, x.dtype) * tf.ones_like(x)
    scores = x + tf.math.log(keep)  # HERE
    return tf.nn.softmax(scores)


X = {"x": (3, 4)}
ABC = {"a": (3, 4), "b": (3, 4), "c": (3, 4)}


@pytest.mark.parametrize(
    ("function", "inputs", "check"),
    [
        (second_of_two, X, "wrong_gradient"),
        (first_of_two, X, "wrong_gradient"),
        (turned, X, "wrong_gradient"),
        (added, ABC, "wrong_gradient"),
        (second_stop, X, "detached_part"),
        (in_a_branch, X, "zero_gradient"),
        (product, X, "wrong_at_point"),
        (masked, X, "not_finite"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_the_line_is_named(
    function: Callable[..., Any], inputs: dict[str, Any], check: str
) -> None:
    """By every finding of the fault."""
    report = audit(function, inputs=inputs)
    found = [f.source for f in report.findings if f.check == check]
    assert found
    for line in found:
        assert line is not None
        assert line.text.endswith("# HERE"), str(report)
