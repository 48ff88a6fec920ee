"""Whether the gradient is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import AuditFinding, audit


def found(thing: Any, **arguments: Any) -> dict[tuple[str, str], AuditFinding]:
    """Returns what an audit finds, by check and subject."""
    report = audit(thing, **arguments)
    return {(one.check, one.subject): one for one in report.findings}


def custom(value: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Any:
    """An activation with a backward pass of its own."""

    @tf.custom_gradient
    def activation(x: Any) -> Any:
        return value(x), lambda upstream: upstream * slope(x)

    return lambda x: activation(x)


def one_wrong(x: Any) -> Any:
    """The slope of a square, of which one number is halved."""
    share = np.ones(x.shape)
    share[1, 3] = 0.5
    return 2 * x * tf.cast(share, x.dtype)


def test_a_factor_in_one_number_is_found() -> None:
    """The worst place is the one that is wrong, and the factor is told."""
    one = found(custom(tf.square, one_wrong))["wrong_gradient", "x"]
    assert one.severity == "critical"
    assert one.values["place"] == [1, 3]
    assert one.values["gradient"] == pytest.approx(one.values["slope"] / 2)
    assert "it is 0.5 times what it should be" in one.message
    assert one.source is not None
    assert "tf.cast(share, x.dtype)" in one.source.text


def test_a_wrong_sign_is_named() -> None:
    """`exp(-x)` without the inner derivative."""
    one = found(custom(lambda x: tf.exp(-x), lambda x: tf.exp(-x)))
    assert "its sign is wrong" in one["wrong_gradient", "x"].message


def test_a_mixed_up_sum() -> None:
    """A normalisation that hands the error through unchanged."""

    @tf.custom_gradient
    def normalise(x: Any) -> Any:
        size = tf.reduce_sum(x * x, -1, keepdims=True)
        return x / tf.sqrt(1 + size), lambda upstream: upstream

    assert ("wrong_gradient", "x") in found(normalise)


def test_float32_inside_is_recognised() -> None:
    """A cast neither hides an error nor makes one."""

    def right(y_true: Any, y_pred: Any) -> Any:
        off = tf.cast(y_pred, tf.float32) - tf.cast(y_true, tf.float32)
        return tf.reduce_mean(tf.square(off))

    square = custom(tf.square, tf.identity)

    def wrong(y_true: Any, y_pred: Any) -> Any:
        off = tf.cast(y_pred, tf.float32) - tf.cast(y_true, tf.float32)
        return tf.reduce_mean(square(off))

    report = audit(right)
    assert report.worst is None
    texts = {one.name: one.text for one in report.measurements}
    assert "float32" in texts["gradient_right"]
    one = found(wrong)["wrong_gradient", "y_pred"]
    assert "0.5 times" in one.message


def test_cancellation_is_no_error() -> None:
    """Numbers that lose most digits are judged by steps that are left."""
    report = audit(
        lambda y_true, y_pred: (
            tf.reduce_sum(1e8 + tf.square(y_true - y_pred)) - 12e8
        )
    )
    assert {one.check for one in report.findings} == {"loses_precision"}


@pytest.mark.parametrize(
    "kinked",
    [
        tf.nn.relu,
        tf.abs,
        lambda x: tf.maximum(x, 0.5),
        lambda x: tf.clip_by_value(x, -1.0, 1.0),
        lambda x: tf.reduce_max(x, -1),
        lambda x: tf.sort(x, -1),
        lambda x: tf.where(x > 0, x, 0.1 * x),
        lambda x: tf.nn.relu(x + 1e-6) + tf.nn.relu(x - 1 + 1e-7),
        lambda x: 1e4 * tf.square(x) + tf.abs(x),
        lambda x: tf.sin(300.0 * x),
        lambda x: tf.norm(x, axis=-1),
    ],
)
def test_kinks_are_never_wrong(kinked: Any) -> None:
    """Kinks, their rims and strong curvature.

    A norm has no slope at 0; a stack of steep ones explodes.
    """
    checks = {check for check, _ in found(lambda x: kinked(x))}
    assert checks <= {"not_finite", "exploding"}


def test_single_points_are_told_apart() -> None:
    """TensorFlow's `cumprod` is wrong at zeros, and right beside them."""
    one = found(lambda x: tf.math.cumprod(x, -1))["wrong_at_point", "x"]
    assert one.severity == "info"
    assert np.any(np.array(one.inputs["x"]) == 0)


def test_straight_through_estimators_have_a_name() -> None:
    """By a custom gradient, and by `stop_gradient`."""
    rounded = custom(tf.round, tf.ones_like)
    for estimator in (rounded, lambda x: x + tf.stop_gradient(tf.sign(x) - x)):
        ((check, _),) = found(estimator)
        assert check == "straight_through"


def test_a_missing_mask_is_no_estimator() -> None:
    """ReLU that hands the error through where it is closed."""
    one = found(custom(tf.nn.relu, tf.ones_like))["wrong_gradient", "x"]
    assert one.severity == "warning"


def test_a_reversal_is_meant() -> None:
    """The identity has another gradient only on purpose."""
    reversal = custom(tf.identity, lambda x: tf.constant(-0.3, x.dtype))
    one = found(reversal)["changed_gradient", "x"]
    assert one.severity == "info"
    assert "-0.3 times" in one.message


def test_a_detached_part_is_judged_by_where_it_leads() -> None:
    """Half a slope leads downhill, the rest of a loss does not."""

    def half(y_true: Any, y_pred: Any) -> Any:
        off = y_true - y_pred
        return tf.reduce_mean(tf.stop_gradient(off) * off, -1)

    def rest(y_true: Any, y_pred: Any) -> Any:
        off = y_true - tf.stop_gradient(y_pred)
        return tf.reduce_mean(off * off + 0.1 * tf.abs(y_pred), -1)

    one = found(half)["detached_part", "y_pred"]
    assert one.severity == "info"
    assert one.source is not None
    assert "tf.stop_gradient(off) * off" in one.source.text
    assert found(rest)["detached_part", "y_pred"].severity == "warning"


class Product(keras.layers.Layer):
    """A product whose backward pass is wrong in the weights."""

    def build(self, shape: Any) -> None:
        """Makes the weights."""
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, inputs: Any) -> Any:
        """Returns `[batch, 3]`."""

        @tf.custom_gradient
        def product(x: Any, w: Any) -> Any:
            def backward(u: Any) -> Any:
                return u @ tf.transpose(w), tf.transpose(x) @ u * 2

            return x @ w, backward

        return product(inputs, tf.convert_to_tensor(self.kernel))


def test_weights_are_inputs_like_others() -> None:
    """Of a layer each is named; it itself stays as it was."""
    layer = Product()
    ((key, one),) = found(layer).items()
    assert key == ("wrong_gradient", "kernel")
    assert "it is 2 times" in one.message
    assert not layer.built
    layer.build((4, 6))
    before = layer.kernel.numpy()
    assert ("wrong_gradient", "kernel") in found(layer)
    assert np.array_equal(layer.kernel.numpy(), before)
    assert layer.dtype_policy.name == "float32"


def test_large_inputs_are_looked_at_in_directions() -> None:
    """One wrong number of two hundred shows, and is found."""

    def slope(x: Any) -> Any:
        share = np.ones(x.shape)
        share[3, 17] = 1.01
        return 2 * x * tf.cast(share, x.dtype)

    one = found(custom(tf.square, slope), inputs=(4, 50))
    assert one["wrong_gradient", "x"].values["place"] == [3, 17]


def test_random_numbers() -> None:
    """Those of Keras are held; of others it is said that they are not."""

    def noisy(y_true: Any, y_pred: Any) -> Any:
        noise = tf.random.uniform(tf.shape(y_pred), dtype=y_pred.dtype)
        return tf.reduce_mean(noise * tf.square(y_true - y_pred))

    names = [one.name for one in audit(noisy).measurements]
    assert "gradient_not_checked" in names
    layer = keras.layers.Dropout(0.5, seed=1)
    names = [one.name for one in audit(layer).measurements]
    assert names.count("gradient_right") == 1


def test_a_model_with_a_batch() -> None:
    """The loss of a compiled model by its weights, which stay as they are."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
    y = (x.sum(1, keepdims=True) > 0).astype("float32")
    model = keras.Sequential(
        [
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    model.build(x.shape)
    before = [v.numpy() for v in model.variables]
    report = audit(model, inputs=(x, y))
    assert report.kind == "model"
    assert report.worst is None
    right = {m.subject for m in report.measurements if m.name.endswith("right")}
    assert len(right) == len(model.trainable_variables)
    assert all(
        map(np.array_equal, before, (v.numpy() for v in model.variables))
    )
