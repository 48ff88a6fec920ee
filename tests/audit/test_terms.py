"""Terms of a loss, second derivatives, graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import gradwatch
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.terms import terms
from gradwatch.components import LISTENERS


def told(weight: float) -> dict[str, Any]:
    """What is said of a fit and a penalty with a weight."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        fit = tf.reduce_mean(tf.square(y_true - y_pred), -1)
        size = tf.reduce_mean(tf.abs(y_pred), -1)
        gradwatch.component("fit", fit)
        return fit + weight * gradwatch.component("size", size, weight)

    found = list(terms(subject_of(loss, None, 0)))
    return {
        one.check if isinstance(one, AuditFinding) else one.subject: one
        for one in found
    }


def test_each_term_is_measured() -> None:
    """Of 12 numbers each has a slope of 0.1 / 12 or -0.1 / 12."""
    mild = told(0.1)
    assert set(mild) == {"fit", "size"}
    assert isinstance(mild["size"], Measurement)
    assert mild["size"].value == pytest.approx(0.1 / np.sqrt(12), rel=1e-6)
    assert "weight 0.1" in mild["size"].text
    assert LISTENERS == []


def test_decades_are_told() -> None:
    """A heavy term is a warning, one that is next to none is information."""
    heavy = told(1000.0)["dominant_component"]
    assert (heavy.severity, heavy.subject) == ("warning", "size")
    faint = told(1e-4)["faint_component"]
    assert (faint.severity, faint.subject) == ("info", "size")


@tf.custom_gradient
def _once(x: Any) -> Any:
    slope = tf.constant(2 * x.numpy()) if tf.executing_eagerly() else (
        tf.stop_gradient(2 * x)
    )  # fmt: skip
    return tf.square(x), lambda upstream: upstream * slope


@tf.custom_gradient
def _wrong(x: Any) -> Any:
    slope = tf.stop_gradient(x) + x
    return tf.square(x), lambda upstream: upstream * slope


@pytest.mark.parametrize(
    ("square", "check"),
    [(tf.square, None), (_once, "missing"), (_wrong, "wrong")],
)
def test_second_derivatives(square: Any, check: str | None) -> None:
    """Only if they are asked for."""

    def function(x: Any) -> Any:
        return tf.reduce_sum(square(x), -1)

    checks = [
        [f.check for f in gradwatch.audit(function, second_order=s).findings]
        for s in (False, True)
    ]
    assert checks == [[], [f"{check}_second_gradient"] if check else []]
