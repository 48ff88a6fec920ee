"""What examples of a batch have to do with each other, and their weights."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf
from keras import ops

from gradwatch.audit.batches import batches
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding
from gradwatch.audit.weights import weights


def found(check: Any, thing: Any, **inputs: Any) -> dict[str, str]:
    """Severities by name."""
    told = check(subject_of(thing, inputs or None, 0))
    return {
        one.check: one.severity for one in told if isinstance(one, AuditFinding)
    }


def squares(y_true: Any, y_pred: Any) -> Any:
    """Squares of the errors."""
    return tf.square(y_true - y_pred)


MIXED = {
    "softmax": lambda y_true, y_pred: (
        -tf.reduce_sum(y_true * tf.nn.log_softmax(y_pred, 0), -1)
    ),
    "largest": lambda y_true, y_pred: tf.reduce_mean(
        squares(y_true, y_pred / (1 + tf.reduce_max(tf.abs(y_pred)))), -1
    ),
    "columns": lambda y_true, y_pred: tf.reduce_mean(
        squares(y_true, y_pred), 0
    ),
    "sums": lambda y_true, y_pred: tf.reduce_mean(
        squares(tf.cumsum(y_true), tf.cumsum(y_pred)), -1
    ),
    "order": lambda y_true, y_pred: (
        tf.reduce_mean(squares(y_true, y_pred))
        + tf.reduce_mean(squares(y_pred[1:], y_pred[:-1]))
    ),
}
APART = {
    "each": lambda y_true, y_pred: tf.reduce_mean(squares(y_true, y_pred), -1),
    "ratio": lambda y_true, y_pred: (
        tf.reduce_sum(y_true * squares(y_true, y_pred))
        / (1 + tf.reduce_sum(squares(y_true, 0.0)))
    ),
    "rank": lambda y_true, y_pred: tf.reduce_mean(
        squares(y_true[:, None] - y_true, y_pred[:, None] - y_pred)
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_examples_are_a_warning(name: str) -> None:
    """By their values, their shape, or their order."""
    assert found(batches, MIXED[name]) == {"batch_mixed": "warning"}


@pytest.mark.parametrize("name", APART)
def test_a_set_is_no_mixture(name: str) -> None:
    """One number for the batch may be a ratio, or of pairs."""
    assert found(batches, APART[name]) == {}


def test_weights_of_targets_and_contrasts_are_information() -> None:
    """Classes by their frequency; two views; groups."""

    def balanced(y_true: Any, y_pred: Any) -> Any:
        often = tf.reduce_mean(tf.square(y_true))
        return tf.reduce_mean(squares(y_true, y_pred), -1) / (1 + often)

    def contrast(z_a: Any, z_b: Any) -> Any:
        logits = tf.matmul(z_a, z_b, transpose_b=True)
        return -tf.linalg.diag_part(tf.nn.log_softmax(logits))

    assert found(batches, balanced) == {"batch_mixed": "info"}
    assert found(batches, contrast) == {"batch_mixed": "info"}
    assert found(batches, keras.losses.Circle()) == {"batch_mixed": "info"}


def test_broadcast_targets_are_a_mixture() -> None:
    """Targets `[batch]` and predictions `[batch, 1]` make a square."""
    inputs = {"y_true": (4,), "y_pred": (4, 1)}
    one = found(batches, APART["each"], **inputs)
    assert one == {"batch_mixed": "warning"}


class Centred(keras.layers.Layer):
    """Subtracts the mean of the batch."""

    def call(self, inputs: Any) -> Any:
        """Returns `[batch, ...]`."""
        return inputs - ops.mean(inputs, axis=0)


def test_layers_mix_examples_in_training_only() -> None:
    """Statistics that are kept are the way to do so."""
    assert found(batches, Centred()) == {"batch_mixed": "warning"}
    assert found(batches, keras.layers.BatchNormalization()) == {}
    assert found(batches, keras.layers.Dropout(0.5)) == {}
    assert found(batches, keras.layers.AdditiveAttention()) == {}


class Own(keras.losses.Loss):
    """Weighs and reduces as it is told."""

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """Returns a scalar."""
        each = ops.mean(ops.square(y_true - y_pred), -1)
        if sample_weight is not None:
            each = each * sample_weight
        return ops.mean(each)


class Ignoring(keras.losses.Loss):
    """Forgets the weights."""

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """Returns a scalar."""
        return ops.mean(ops.square(y_true - y_pred))


class Refusing(keras.losses.Loss):
    """Takes no weights."""

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """Returns a scalar."""
        return ops.mean(ops.square(y_true - y_pred))


class Averaged(keras.losses.Loss):
    """Reduces what Keras is to weigh."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns a scalar."""
        return ops.mean(ops.square(y_true - y_pred))


class OfSets(keras.losses.Loss):
    """A ratio of sums over the batch."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns a scalar."""
        both = ops.sum(ops.abs(y_true * y_pred))
        return 1 - both / (1 + ops.sum(ops.abs(y_true) + ops.abs(y_pred)))


def test_weights_and_reduction_are_honoured() -> None:
    """By Keras; by a `__call__` of one's own only if it does so."""
    assert found(weights, keras.losses.MeanSquaredError()) == {}
    assert found(weights, Own()) == {}
    for loss in (Ignoring(), Refusing(), Averaged()):
        assert found(weights, loss) == {"weight_ignored": "warning"}
    assert found(weights, OfSets()) == {"weight_ignored": "info"}
    assert found(weights, Own(reduction="sum")) == {
        "reduction_ignored": "warning"
    }
