"""Constants that float32 swallows."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from gradwatch.audit.finite import finite
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding, Measurement


def told(thing: Any, **inputs: Any) -> dict[float, AuditFinding]:
    """Returns what is said of constants."""
    said = finite(subject_of(thing, inputs or None, 0))
    return {
        one.values["constant"]: one
        for one in said
        if isinstance(one, AuditFinding) and one.check == "swallowed_epsilon"
    }


def clipped(y_true: Any, y_pred: Any) -> Any:
    """Its upper end is 1."""
    p = tf.clip_by_value(y_pred, 1e-9, 1 - 1e-9)
    return -y_true * tf.math.log(p) - (1.0 - y_true) * tf.math.log(1.0 - p)


def outside(y_true: Any, y_pred: Any) -> Any:
    """An epsilon that is added to 1 before what is near 1 is taken off."""
    return -tf.math.log(1 + 1e-12 - tf.abs(y_true - y_pred))


def underflow(x: Any) -> Any:
    """The square of 1e-25 is no float32."""
    return x / tf.sqrt(x * x + 1e-25**2)


def half(x: Any) -> Any:
    """Float16 has no 1e-8."""
    narrow = tf.cast(x, tf.float16)
    return tf.cast(narrow / (tf.abs(narrow) + 1e-8), x.dtype)


@pytest.mark.parametrize(
    ("thing", "constant", "line"),
    [
        (clipped, 1e-9, "clip_by_value"),
        (outside, 1e-12, "1 + 1e-12"),
        (underflow, 1e-50, "1e-25**2"),
        (half, 1e-8, "1e-8"),
    ],
)
def test_swallowed_where_it_is_needed(
    thing: Any, constant: float, line: str
) -> None:
    """The constant and its line are named; what it prevents happens."""
    unit = ((4, 3), (0, 1))
    pair = {"y_true": unit, "y_pred": unit}
    two = thing in (clipped, outside)
    ((found, one),) = told(thing, **(pair if two else {})).items()
    assert found == pytest.approx(constant)
    assert one.severity == "warning"
    assert one.source is not None
    assert line in one.source.text


def test_swallowed_where_nothing_needs_it() -> None:
    """A sum of 1 at least feels no 1e-9, and does not have to."""

    def share(x: Any) -> Any:
        e = tf.exp(x - tf.reduce_max(x, -1, keepdims=True))
        return e / (tf.reduce_sum(e, -1, keepdims=True) + 1e-9)

    ((constant, one),) = told(share).items()
    assert constant == 1e-9
    assert one.severity == "info"


@pytest.mark.parametrize(
    "thing",
    [
        lambda x: tf.sqrt(x * x + 1e-12),
        lambda x: tf.math.log(tf.abs(x) + 1e-30),
        lambda x: tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6),
        lambda x: x / (tf.reduce_sum(tf.abs(x)) + 1e-12),
        lambda x: 0.1 * x + 0.2,
    ],
)
def test_felt(thing: Any) -> None:
    """Where what it is added to may be small it has its effect."""
    assert told(thing) == {}


def test_narrower_dtypes() -> None:
    """What float16 does not hold is measured, not found fault with."""

    def clip(x: Any) -> Any:
        return tf.clip_by_value(x, 1e-8, 1 - 1e-4)

    texts = [
        one.text
        for one in finite(subject_of(clip, None, 0))
        if isinstance(one, Measurement) and one.name == "constant"
    ]
    assert any("float16" in text for text in texts)
