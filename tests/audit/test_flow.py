"""Whether there is a gradient, and what cuts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from gradwatch import AuditFinding, audit
from gradwatch.audit.flow import flow
from gradwatch.audit.kinds import subject_of
from tests.audit.test_gradient import found


def share(thing: Any, **arguments: Any) -> dict[str, float]:
    """Returns the share of inputs with a gradient, by input."""
    return {
        m.subject: m.value
        for m in audit(thing, **arguments).measurements
        if m.name == "usable_gradient"
    }


def wrong_answers(y_true: Any, y_pred: Any) -> Any:
    """Share of wrong classes."""
    right = tf.equal(tf.argmax(y_true, -1), tf.argmax(y_pred, -1))
    return 1.0 - tf.cast(right, tf.float32)


def rounded(y_true: Any, y_pred: Any) -> Any:
    """Error of whole numbers."""
    return tf.reduce_mean(tf.abs(y_true - tf.round(y_pred)))


def signs(y_true: Any, y_pred: Any) -> Any:
    """Error of signs, whose derivative is zero."""
    return tf.reduce_mean(tf.square(y_true - tf.sign(y_pred)), -1)


@pytest.mark.parametrize(
    ("loss", "check", "operation"),
    [
        (wrong_answers, "missing_gradient", "`ArgMax`"),
        (rounded, "missing_gradient", "`Round`"),
        (signs, "zero_gradient", "`Sign`"),
    ],
)
def test_step_functions(loss: Any, check: str, operation: str) -> None:
    """The operation and the line that cut the gradient are named."""
    ((key, one),) = found(loss).items()
    assert key == (check, "y_pred")
    assert one.severity == "critical"
    assert operation in one.message
    assert one.source is not None
    assert one.source.function == loss.__name__
    assert "def " not in one.source.text


def test_a_cast_in_a_loss_of_keras() -> None:
    """A `keras.losses.Loss` is looked into as well."""

    class Whole(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            off = ops.cast(y_pred, "int32") - ops.cast(y_true, "int32")
            return ops.mean(ops.square(off), -1)

    one = found(Whole())["missing_gradient", "y_pred"]
    assert "`Cast` in call" in one.message


def test_numpy_code() -> None:
    """What cannot be traced has no gradient to speak of."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return np.mean((y_true.numpy() - y_pred.numpy()) ** 2)

    one = found(loss)["missing_gradient", "y_pred"]
    assert "cannot be traced" in one.message


def test_a_constant() -> None:
    """A loss that does not look at the prediction."""
    one = found(lambda y_true, y_pred: tf.constant(1.0))
    message = one["missing_gradient", "y_pred"].message
    assert "does not depend on it" in message


def test_the_share_is_measured() -> None:
    """Half of the numbers open a ReLU; hardly any meets a steep sigmoid."""
    assert share(keras.activations.relu)["x"] == pytest.approx(0.5, abs=0.05)
    one = found(lambda x: tf.clip_by_value(x, 1.0, 1.1))
    assert one["zero_gradient", "x"].severity == "warning"
    assert share(keras.losses.CategoricalCrossentropy())["y_pred"] == 1


def test_weights_without_a_gradient() -> None:
    """One that is not used; an embedding's indices need none."""

    class Spare(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.used = self.add_weight(shape=(shape[-1],), name="used")
            self.spare = self.add_weight(shape=(2,), name="spare")

        def call(self, inputs: Any) -> Any:
            return inputs * self.used

    ((key, one),) = found(Spare()).items()
    assert key == ("missing_gradient", "spare")
    assert one.severity == "warning"
    assert audit(keras.layers.Embedding(7, 3)).worst is None


class Bins(keras.layers.Layer):
    """Numbers of bins, or the steps that they are."""

    def __init__(self, dtype_of_result: str) -> None:
        super().__init__()
        self.result = dtype_of_result

    def call(self, x: Any) -> Any:
        return ops.cast(ops.floor(4.0 * x), self.result)


@pytest.mark.parametrize(
    ("make", "severity"),
    [
        (lambda: keras.layers.Discretization([0.0, 1.0]), "info"),
        (lambda: keras.layers.CategoryEncoding(5, "one_hot"), "info"),
        (lambda: Bins("int32"), "info"),
        (lambda: Bins("float32"), "critical"),
        (lambda: keras.layers.Lambda(lambda x: tf.round(x)), "critical"),
    ],
)
def test_layers_that_prepare_data_have_none_by_nature(
    make: Callable[[], Any], severity: str
) -> None:
    """Whole numbers, and what Keras has made without weights."""
    found = list(flow(subject_of(make(), None, 0)))
    checks = [f for f in found if isinstance(f, AuditFinding)]
    assert [(f.check, f.severity) for f in checks] == [
        ("missing_gradient", severity)
    ]


def test_of_whole_numbers_no_gradient_is_asked() -> None:
    """Codes go in, rows come out."""
    layer = keras.layers.CategoryEncoding(5)
    report = audit(layer, inputs="3x4/0..4/int")
    assert report.findings == ()
