"""Whether values and gradients are finite."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch.audit.finite import finite
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding, Measurement

UNIT = {"y_true": ((4, 3), (0, 1)), "y_pred": ((4, 3), (0, 1))}


def told(thing: Any, inputs: Any = None) -> list[AuditFinding | Measurement]:
    """Returns what the check says."""
    return list(finite(subject_of(thing, inputs, 0)))


def found(thing: Any, inputs: Any = None) -> list[AuditFinding]:
    """Returns findings that call for something to be done."""
    said = [one for one in told(thing, inputs) if isinstance(one, AuditFinding)]
    return [one for one in said if one.severity != "info"]


def test_a_logarithm_of_zero() -> None:
    """A probability of 0 is inside; one of them is enough to show it."""

    def entropy(y_true: Any, y_pred: Any) -> Any:
        return -tf.reduce_mean(y_true * tf.math.log(y_pred), -1)

    (one,) = found(entropy, UNIT)
    assert (one.check, one.severity) == ("not_finite", "critical")
    assert one.subject == "y_pred"
    assert one.values["operation"] == "Log"
    assert np.sum(np.array(one.inputs["y_pred"]) == 0) == 1
    assert one.source is not None
    assert "tf.math.log(y_pred)" in one.source.text
    assert "log_softmax" in one.advice


def test_a_root_at_a_tie() -> None:
    """The value is finite, its gradient is not where prediction is target."""

    def distance(y_true: Any, y_pred: Any) -> Any:
        off = tf.square(y_true - y_pred)
        return tf.sqrt(tf.reduce_sum(off, -1))

    (one,) = found(distance)
    assert np.isfinite(one.values["value"])
    assert not np.isfinite(one.values["gradient"])
    assert "y_pred is y_true" in one.message
    assert "derivative of `Sqrt`" in one.message
    rows = np.isclose(one.inputs["y_true"], one.inputs["y_pred"]).all(1)
    assert rows.sum() == 1


def test_overflow_is_a_fault_of_the_formulation_only() -> None:
    """`exp` is as large as it is; the logarithm of its sum is not."""

    def naive(x: Any) -> Any:
        return tf.math.log(1.0 + tf.exp(x))

    def counts(y_true: Any, y_pred: Any) -> Any:
        return tf.exp(y_pred) - y_true * y_pred

    assert found(tf.exp) == []
    assert found(counts) == []
    assert found(keras.activations.softplus) == []
    (one,) = found(naive)
    assert "from about 88.7 on" in one.message
    assert one.values["operation"] == "Exp"


def test_xla_alone() -> None:
    """A masked root: TensorFlow's own kernels hide what XLA shows."""

    def masked(x: Any) -> Any:
        return tf.where(x > 0, tf.sqrt(x), tf.zeros_like(x))

    (one,) = found(masked)
    assert "under XLA only" in one.message
    assert one.values["operation"] == "Sqrt"
    assert one.source is not None
    assert "tf.sqrt(x)" in one.source.text

    def safe(x: Any) -> Any:
        inside = tf.where(x > 0, x, tf.ones_like(x))
        return tf.where(x > 0, tf.sqrt(inside), tf.zeros_like(x))

    assert found(safe) == []


def test_nothing_to_divide_by() -> None:
    """An empty mask, and predictions that are all alike."""

    def masked(y_true: Any, y_pred: Any) -> Any:
        mask = tf.cast(y_true > 0, y_pred.dtype)
        return tf.reduce_sum(mask * y_pred * y_pred) / tf.reduce_sum(mask)

    def correlation(y_true: Any, y_pred: Any) -> Any:
        a = y_true - tf.reduce_mean(y_true)
        b = y_pred - tf.reduce_mean(y_pred)
        spread = tf.sqrt(tf.reduce_sum(a * a) * tf.reduce_sum(b * b) + 0.0)
        return 1.0 - tf.reduce_sum(a * b) / spread

    for loss in (masked, correlation):
        said = found(loss, UNIT)
        assert {one.severity for one in said} == {"critical"}
        assert any("divide_no_nan" in one.advice for one in said)


def test_a_batch_of_one_example() -> None:
    """A spread by one less than there are examples."""

    def spread(x: Any) -> Any:
        count = tf.cast(tf.shape(x)[0], x.dtype)
        off = x - tf.reduce_mean(x, 0)
        return tf.reduce_sum(off * off, 0) / (count - 1.0)

    said = [one for one in told(spread) if isinstance(one, Measurement)]
    (one,) = (one for one in said if one.name == "batch_of_one")
    assert "`RealDiv`" in one.text
    assert found(spread) == []


def test_a_search_finds_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pole where no special number is."""
    module = sys.modules["gradwatch.audit.search"]
    monkeypatch.setattr(module, "_EXAMPLES", 100)

    def hole(x: Any) -> Any:
        return 1.0 / tf.maximum(tf.abs(x - 3.0) - 40.0, 0.0)

    def none(x: Any) -> Any:
        return 1.0 / (1.0 + tf.abs(x))

    assert found(none) == []
    assert [one.check for one in found(hole)][:1] == ["not_finite"]


def test_numbers_it_is_not_meant_for() -> None:
    """Of a loss that takes no negative numbers positive ones are tried."""

    def ratio(x: Any, scale: Any, bias: Any) -> Any:
        return tf.math.log(1.0 + x) * scale + bias

    inputs = {"x": (4, 3), "scale": (4, 3), "bias": (4, 3)}
    said = told(ratio, inputs)
    checks = {
        one.check: one.severity for one in said if isinstance(one, AuditFinding)
    }
    assert checks == {"not_finite_outside": "info"}


def test_hidden_nan_is_worth_knowing() -> None:
    """A mask that drops what is not a number."""

    def dropping(y_true: Any, y_pred: Any) -> Any:
        known = tf.where(tf.math.is_nan(y_pred), y_true, y_pred)
        return tf.reduce_mean(tf.square(known - y_true), -1)

    said = [one for one in told(dropping) if isinstance(one, AuditFinding)]
    assert [(one.check, one.severity) for one in said] == [
        ("nan_hidden", "info")
    ]


@pytest.mark.parametrize(
    "thing",
    [
        keras.losses.BinaryCrossentropy(),
        keras.losses.MeanAbsolutePercentageError(),
        keras.layers.LayerNormalization(),
    ],
)
def test_keras_is_finite(thing: Any) -> None:
    """Nothing is said of it, and much was tried."""
    said = told(thing)
    assert not any(isinstance(one, AuditFinding) for one in said)
    counts = {
        one.name: one.value for one in said if isinstance(one, Measurement)
    }
    assert counts["finite"] >= 20
    assert counts["searched"] >= 5


def test_the_largest_safe_input() -> None:
    """A square leaves float16 at 256, bfloat16 not before 1e19."""
    sizes = [
        one.value
        for one in told(tf.square)
        if isinstance(one, Measurement) and one.name == "largest_safe_input"
    ]
    assert sizes == [2.0**63, 2.0**7, 2.0**63]
