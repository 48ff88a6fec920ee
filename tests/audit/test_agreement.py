"""Graph mode, XLA and eager code side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch.audit.agreement import agreement
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding


def told(thing: Any, **inputs: Any) -> list[AuditFinding]:
    """Returns what is found of a function."""
    said = agreement(subject_of(thing, inputs or None, 0))
    return [one for one in said if isinstance(one, AuditFinding)]


def test_what_python_remembers_differs_in_a_graph() -> None:
    """A counter stays as it was when it was traced."""
    count = [0]

    def growing(y_true: Any, y_pred: Any) -> Any:
        count[0] += 1
        return count[0] * tf.reduce_mean(tf.square(y_true - y_pred), -1)

    (one,) = told(growing)
    assert (one.check, one.subject) == ("graph_differs", "")


def test_a_gradient_may_differ_alone() -> None:
    """The value is the same eagerly and in a graph."""
    count = [0]

    @tf.custom_gradient
    def growing(x: Any) -> Any:
        def grad(upstream: Any) -> Any:
            count[0] += 1
            return float(count[0]) * upstream

        return x + 1.0, grad

    (one,) = told(growing, x=(3, 4))
    assert (one.check, one.subject) == ("graph_differs", "x")


def test_xla_casts_otherwise() -> None:
    """A number too large for an integer: the least one, or the largest."""

    def hashed(x: Any) -> Any:
        whole = tf.cast(1e11 * (1.0 + tf.abs(x)), tf.int32)  # HERE
        return x * tf.cast(whole, x.dtype)

    (one,) = told(hashed, x=(3, 4))
    assert one.check == "xla_differs"
    assert "`Cast` is the first that differs" in one.message
    assert one.source is not None
    assert one.source.text.endswith("# HERE")
    assert np.sign(one.values["graph"]) == -np.sign(one.values["xla"])


def test_a_gradient_differs_under_xla_alone() -> None:
    """Its backward pass holds what the forward pass does not."""

    @tf.custom_gradient
    def odd(x: Any) -> Any:
        def grad(upstream: Any) -> Any:
            whole = tf.cast(1e11 * (1.0 + tf.abs(x)), tf.int32)
            return upstream * tf.cast(whole > 0, x.dtype)

        return x + 0.0, grad

    (one,) = told(odd, x=(3, 4))
    assert (one.check, one.subject) == ("xla_differs", "x")


@pytest.mark.parametrize(
    "thing",
    [
        lambda x: tf.sin(1e4 * x),
        lambda x: tf.square(x + 3000.0) - tf.square(x - 3000.0),
        lambda x: tf.math.log(tf.nn.softmax(30.0 * x)),
        lambda x: tf.floor(3.0 * x) * x,
        lambda x: tf.exp(4.0 * x) / tf.reduce_sum(tf.exp(4.0 * x)),
        lambda x: tf.linalg.inv(tf.matmul(x, x, transpose_b=True)),
    ],
)
def test_rounding_is_no_difference(thing: Callable[..., Any]) -> None:
    """Steep, ill conditioned, with ties: the same up to rounding."""
    assert told(thing, x=(3, 4)) == []


# Not made before a test begins: some make variables, which starts TensorFlow.
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.Dropout(0.5, seed=1),
        lambda: keras.layers.MaxPooling2D(2),
        lambda: keras.layers.GRU(3),
    ],
)
def test_layers_agree(make: Callable[[], Any]) -> None:
    """Random numbers, ties, a loop."""
    assert told(make()) == []
