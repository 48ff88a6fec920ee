"""An activation's range and slope, and how deep a stack can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import audit
from gradwatch.audit.activation import activation
from gradwatch.audit.depth import Shape, moments, stack
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.stacked import stacked


def measured(thing: Any) -> dict[str, Any]:
    """Values by name."""
    told = list(activation(subject_of(thing, None, 0)))
    assert not any(isinstance(one, AuditFinding) for one in told)
    return {one.name: one.value for one in told if isinstance(one, Measurement)}


def test_what_is_known_of_usual_ones() -> None:
    """Gains, ranges and depths that theory gives."""
    relu = measured(keras.activations.relu)
    assert relu["gain"] == pytest.approx(np.sqrt(2), rel=1e-3)
    assert relu["range"] == "0 to infinity"
    assert relu["depth"] == 1000
    sigmoid = measured(keras.activations.sigmoid)
    assert sigmoid["range"] == "0 to 1"
    assert 10 < sigmoid["depth"] < 20
    assert measured(keras.activations.softsign)["range"] == "-1 to 1"
    assert measured(lambda x: tf.asinh(x))["range"] == "-infinity to infinity"
    assert measured(keras.activations.selu)["gain"] == pytest.approx(1, 1e-3)
    assert "depth" not in measured(keras.activations.softmax)
    assert "depth" not in measured(keras.layers.Rescaling(1 / 255))


def test_the_depth_is_that_of_a_real_stack() -> None:
    """A wide net of numpy loses as much of its gradient on the way."""
    x = np.linspace(-40, 40, 8001)
    value = 1 / (1 + np.exp(-x))
    shape = Shape(x, value, value * (1 - value))
    gain = 1 / np.sqrt(moments(shape)[0])
    random, width, depth = np.random.default_rng(0), 600, 10
    z = random.normal(size=width)
    kernels, slopes = [], []
    for _ in range(depth):
        f = 1 / (1 + np.exp(-z))
        slopes.append(f * (1 - f))
        scale = gain / np.sqrt(width)
        kernels.append(random.normal(size=(width, width)) * scale)
        z = kernels[-1] @ f
    error = random.normal(size=width)
    before = np.linalg.norm(error)
    for kernel, slope in zip(reversed(kernels), reversed(slopes)):
        error = slope * (kernel.T @ error)
    factor = (np.linalg.norm(error) / before) ** (1 / depth)
    assert factor == pytest.approx(stack(shape, gain).factor, rel=0.05)


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tiny": (lambda x: 0.01 * tf.tanh(x), "vanishing"),
    "twice": (lambda x: tf.sigmoid(tf.sigmoid(0.5 * x)), "vanishing"),
    "flat": (lambda x: tf.sigmoid(0.05 * x), "vanishing"),
    "steep": (lambda x: 10 * tf.nn.relu(x), "exploding"),
    "sinh": (tf.sinh, "exploding"),
}
GOOD: dict[str, Callable[[Any], Any]] = {
    "squared": lambda x: tf.nn.relu(x) ** 2,
    "shrink": lambda x: x - tf.tanh(x),
    "snake": lambda x: x + tf.sin(x) ** 2,
    "bell": lambda x: tf.exp(-(x**2)),
    "rate": tf.exp,
    "positive": lambda x: tf.nn.elu(x) + 1,
    "unit": lambda x: tf.math.l2_normalize(x, -1),
}


@pytest.mark.parametrize("name", BAD)
def test_few_layers_are_a_warning(name: str) -> None:
    """With any usual gain, or with the initializers of Keras."""
    function, check = BAD[name]
    told = activation(subject_of(lambda x: function(x), None, 0))
    (one,) = (each for each in told if isinstance(each, AuditFinding))
    assert (one.check, one.severity) == (check, "warning")
    assert one.values["layers"] <= 10


@pytest.mark.parametrize("name", GOOD)
def test_others_are_not(name: str) -> None:
    """Powers, shrinkages, what is made for outputs."""
    measured(lambda x: GOOD[name](x))


def test_layers_with_kernels_are_stacked() -> None:
    """As they are at first."""

    def told(deviation: float | None) -> dict[str, Any]:
        start = "glorot_uniform" if deviation is None else (
            keras.initializers.RandomNormal(stddev=deviation, seed=1)
        )  # fmt: skip
        layer = keras.layers.Dense(64, kernel_initializer=start)
        subject = subject_of(layer, {"inputs": (8, 64)}, 0)
        found = (o for o in stacked(subject) if isinstance(o, AuditFinding))
        return {one.check: one.values["factor"] for one in found}

    assert told(None) == {}
    assert told(1.0)["exploding"] == pytest.approx(8, rel=0.1)
    assert told(1e-3)["vanishing"] == pytest.approx(0.008, rel=0.1)


def test_a_notebook_shows_a_plot() -> None:
    """Value and derivative; Markdown has block characters."""
    report = audit(keras.activations.tanh)
    page = report._repr_html_()
    assert page.count("<svg") == 1
    assert page.count('stroke="#0277bd"') == 2
    assert "value over x" in page
    assert "derivative ▁" in report.to_markdown()
    (curve,) = report.curves
    assert np.allclose(curve.value, np.tanh(curve.x), atol=1e-6)
    assert "curves" not in report.to_dict()
    loss = audit(keras.losses.BinaryCrossentropy())
    assert loss._repr_html_().count("<svg") == 2


def test_code_that_refuses_large_numbers_is_audited_all_the_same() -> None:
    """What was not stated is not judged then, and it is told."""

    def strict(x: Any) -> Any:
        small = tf.debugging.assert_less(tf.abs(x), tf.cast(30.0, x.dtype))
        with tf.control_dependencies([small]):
            return tf.tanh(x)

    told = {one.name: one.text for one in audit(strict).measurements}
    assert "gradient_right" in told
    assert "assertion failed" in told["activation_not_judged"]
