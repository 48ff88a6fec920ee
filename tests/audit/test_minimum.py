"""Whether a loss has its minimum at the target, and when nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch.audit.kinds import subject_of
from gradwatch.audit.minimum import minimum
from gradwatch.audit.report import AuditFinding

Loss = Callable[[Any, Any], Any]


def mean(values: Any) -> Any:
    """Mean over the features."""
    return tf.reduce_mean(values, -1)


def said(loss: Any, **inputs: Any) -> dict[str, Any]:
    """What is found and measured, by name."""
    told = list(minimum(subject_of(loss, inputs or None, 0)))
    return {
        one.check if isinstance(one, AuditFinding) else one.name: one
        for one in told
    }


def probable(y_true: Any, y_pred: Any) -> Any:
    """Crossentropy of two classes."""
    p = tf.clip_by_value(y_pred, 1e-7, 1 - 1e-7)
    logs = y_true * tf.math.log(p) + (1 - y_true) * tf.math.log(1 - p)
    return -mean(logs)


def overlap(y_true: Any, y_pred: Any) -> Any:
    """Dice coefficient."""
    both = tf.reduce_sum(y_true * y_pred, -1)
    return 2 * both / (tf.reduce_sum(y_true + y_pred, -1) + 1e-6)


def swapped(y_true: Any, y_pred: Any) -> Any:
    """Crossentropy in which the two are exchanged."""
    return probable(y_pred, y_true)


UNIT = {"y_true": ((4, 3), (0, 1)), "y_pred": ((4, 3), (0, 1))}
WRONG: dict[str, tuple[Loss, dict[str, Any]]] = {
    "sign": (lambda y_true, y_pred: -mean((y_true - y_pred) ** 2), {}),
    "shift": (lambda y_true, y_pred: mean((y_true - y_pred + 0.1) ** 2), {}),
    "factor": (lambda y_true, y_pred: mean((y_true - y_pred / 2) ** 2), {}),
    "heavy": (lambda y_true, y_pred: mean((y_true - y_pred) ** 2) + mean(y_pred**2), {}),  # noqa: E501
    "hinge": (lambda y_true, y_pred: mean(tf.nn.relu(1 + y_true * y_pred)), {}),
    "labels": (lambda y_true, y_pred: probable(1 - y_true, y_pred), {}),
    "overlap": (overlap, UNIT),
    "swapped": (swapped, UNIT),
    "no_square": (lambda y_true, y_pred: mean(y_true - y_pred), {}),
    "pinball": (
        lambda y_true, y_pred: mean(
            tf.maximum(0.9 * (y_true - y_pred), 0.1 * (y_true - y_pred))
        ),
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_misplaced_minimum_is_a_warning(name: str) -> None:
    """Whatever the fault is, another prediction is shown to be better."""
    loss, inputs = WRONG[name]
    one = said(loss, **inputs)["not_at_minimum"]
    assert one.severity == "warning"
    if one.values:
        assert one.values["loss_here"] < one.values["loss_there"]
        pair = [np.array([one.inputs[n]] * 2) for n in ("y_true", "y_pred")]
        value = loss(*map(tf.constant, pair)).numpy().mean()
        assert value == pytest.approx(
            one.values["loss_here"], rel=0.01, abs=1e-3
        )


def margin(y_true: Any, y_pred: Any) -> Any:
    """Contrastive: 1 means that a pair belongs together."""
    apart = tf.nn.relu(1.0 - y_pred) ** 2
    return mean(y_true * y_pred**2 + (1 - y_true) * apart)


def noise_contrast(z_a: Any, z_b: Any) -> Any:
    """InfoNCE of two views."""
    logits = tf.matmul(z_a, z_b, transpose_b=True)
    return tf.reduce_mean(-tf.linalg.diag_part(tf.nn.log_softmax(logits)))


def density(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of a normal distribution."""
    middle, log_width = y_pred[:, :1], y_pred[:, 1:2]
    off = (y_true - middle) * tf.exp(-log_width)
    return mean(0.5 * off**2 + log_width)


UNJUDGED: dict[str, tuple[Loss, str]] = {
    "margin": (margin, "margin"),
    "views": (noise_contrast, "named"),
    "critic": (
        lambda y_true, y_pred: tf.reduce_mean(y_true * y_pred),
        "linear",
    ),
    "ignored": (lambda y_true, y_pred: mean(y_pred**2), "does not depend"),
    "density": (density, "parts of the prediction"),
    "batch": (
        lambda y_true, y_pred: noise_contrast(y_true, y_pred),
        "alone",
    ),
}


@pytest.mark.parametrize("name", UNJUDGED)
def test_what_compares_no_target_is_not_judged(name: str) -> None:
    """The reason is told."""
    loss, reason = UNJUDGED[name]
    told = said(loss)
    assert "not_at_minimum" not in told
    assert reason in told["minimum_not_judged"].text


RIGHT: dict[str, Loss] = {
    "probable": probable,
    "logits": lambda y_true, y_pred: mean(
        tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)
    ),
    "light": lambda y_true, y_pred: mean(
        (y_true - y_pred) ** 2 + 0.05 * y_pred**2
    ),
    "rate": lambda y_true, y_pred: mean(tf.exp(y_pred) - y_true * y_pred),
    "lifetime": lambda y_true, y_pred: mean(
        y_true * y_pred - tf.math.log(y_pred)
    ),
    "hinge": lambda y_true, y_pred: mean(tf.nn.relu(1 - y_true * y_pred)),
    "overlap": lambda y_true, y_pred: 1 - overlap(y_true, y_pred),
    "smooth": keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    "rows": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_usual_meaning_of_a_prediction_is_known(name: str) -> None:
    """Probabilities, logits, logarithms, rates, scores; a light penalty."""
    told = said(RIGHT[name])
    assert "not_at_minimum" not in told
    assert "minimum" in told


def test_a_value_below_zero_is_information() -> None:
    """Of a similarity the bound is told, of a density the least seen."""
    one = said(keras.losses.CosineSimilarity())["negative_value"]
    assert one.severity == "info"
    assert "-1 was seen, and that is its bound" in one.message
    assert said(density)["negative_value"].severity == "info"
    assert "negative_value" not in said(probable)


def test_the_floor_of_soft_targets_is_their_entropy() -> None:
    """Of targets that are 90 % sure."""
    floor = said(keras.losses.BinaryCrossentropy())["soft_floor"].value
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert floor == pytest.approx(entropy, rel=1e-4)
