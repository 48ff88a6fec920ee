"""Digits that float32 loses."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch.audit.finite import finite
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding


def lost(thing: Any, inputs: Any = None) -> list[AuditFinding]:
    """Returns what is said of precision."""
    said = finite(subject_of(thing, inputs, 0))
    return [
        one
        for one in said
        if isinstance(one, AuditFinding) and one.check == "loses_precision"
    ]


def test_cancellation_at_usual_numbers() -> None:
    """The difference of two large numbers, of which little is left."""

    def square(x: Any) -> Any:
        return tf.square(x + 3000.0) - tf.square(x - 3000.0)

    def slope(x: Any) -> Any:
        return (tf.tanh(x + 1e-7) - tf.tanh(x)) / 1e-7

    assert [one.severity for one in lost(slope)] == ["warning"]
    assert lost(square) == []


def test_cancellation_far_off_zero() -> None:
    """The mean of squares less the square of the mean, as a hint."""

    def spread(x: Any) -> Any:
        return tf.reduce_mean(x * x, -1) - tf.square(tf.reduce_mean(x, -1))

    (one,) = lost(spread)
    assert one.severity == "info"
    assert "1000" in one.message


def test_cancellation_somewhere_in_a_stated_domain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A search finds where 1 - cos(x) is nothing in float32."""
    module = sys.modules["gradwatch.audit.search"]
    monkeypatch.setattr(module, "_EXAMPLES", 100)
    small = {"x": ((2, 2), (1e-6, 2.0))}

    def cancelled(x: Any) -> Any:
        return (1.0 - tf.cos(x)) / tf.square(x)

    def kept(x: Any) -> Any:
        return tf.math.log1p(tf.square(x)) / (0.01 + x)

    (one,) = lost(cancelled, small)
    assert one.severity == "info"
    assert np.min(one.inputs["x"]) < 0.01
    assert lost(kept, small) == []


@pytest.mark.parametrize(
    "thing",
    [
        lambda x: tf.sin(100.0 * x),
        lambda x: tf.floor(10.0 * x),
        lambda x: tf.math.log(tf.sigmoid(x) + 1e-7),
        lambda y_true, y_pred: tf.square(y_true - y_pred),
        lambda x: tf.math.reduce_variance(x, -1),
        keras.layers.BatchNormalization(),
    ],
)
def test_what_the_function_feels_is_no_loss(thing: Any) -> None:
    """Steep functions, steps, small numbers among larger ones."""
    assert lost(thing) == []
