"""Gradients that are exactly zero: at once, all along, later; or rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch import GradWatch
from gradwatch.records import Anatomy, Finding, Layer
from gradwatch.rules.zeros import ZeroGradient
from tests.rules.made import dense, judged, learning, outputs, weights

MODEL = dense(
    ("first", (64, 32), 0.1), ("second", (32, 32), 0.1), ("last", (32, 10), 0.1)
)
STEPS = np.arange(300)
PATHS = [variable.path for variable in MODEL.variables]


def _zero(
    where: Any = True,
    parts: tuple[str, ...] = ("",),
    loss: Any = 2.31,
    extra: Any = None,
    cuts: Any = (),
    steps: int = 300,
    model: Anatomy = MODEL,
) -> list[Finding]:
    """Gradients of the variables with `parts` in their paths, 0 `where`."""
    columns = learning(loss)
    for path in PATHS:
        zero = np.where(where, 0.0, 0.1)
        norm = zero if any(part in path for part in parts) else 0.1
        columns |= weights(path, gradient_norm=norm, gradient_max_abs=norm)
    columns |= extra or {}
    columns = {k: np.broadcast_to(v, 300)[:steps] for k, v in columns.items()}
    return judged(ZeroGradient(), model, columns, steps, cuts)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_all_from_the_first_step(cuts: set[int]) -> None:
    """Told at the third step; the loss has no slope."""
    (finding,) = _zero(cuts=cuts)
    assert (finding.severity, finding.subject) == ("warning", "first/kernel")
    assert (finding.first_step, finding.last_step) == (0, 2)
    assert finding.causes == ("loss_not_differentiable",)
    assert "all 6 variables" in finding.message


@pytest.mark.parametrize(
    "healthy",
    [
        {"loss": 0.0},  # a hinge that is content
        {"loss": 1.2e-7},  # a sure answer behind a clip
        {"where": STEPS % 3 > 0},  # steps that are content, among others
        {"where": STEPS > 100, "loss": np.where(STEPS > 100, 0.1, 2.3)},
        {"extra": {("nonfinite", ""): 1.0}},
        {"extra": {("update_dropped", ""): 1.0}},
    ],
)
def test_all_zero_and_right_so(healthy: Any) -> None:
    """At the lowest loss, now and then, or under a loss scale too small."""
    assert _zero(**healthy) == []


@pytest.mark.parametrize("highest", [0.0, 1.0])
def test_weights_of_zero_are_named(highest: float) -> None:
    """No example counts, so the loss is 0; where one does, it is content."""
    weighed = {
        ("batch_min", "sample_weights"): 0.0,
        ("batch_max", "sample_weights"): highest,
    }
    found = _zero(loss=0.0, extra=weighed)
    assert [f.last_step for f in found] == ([] if highest else [63])
    for finding in found:
        assert finding.causes == ("data",)
        assert "All sample weights of the batch are 0." in finding.message
        assert "sample or class weights" in finding.advice


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_all_later(cuts: set[int]) -> None:
    """A whole window, while nothing was learned."""
    (finding,) = _zero(STEPS > 100, cuts=cuts)
    assert (finding.first_step, finding.last_step) == (128, 191)


def test_the_first_layers_from_the_start() -> None:
    """Told after a window if something has no slope, else after two."""
    first = ("first", "second")
    (finding,) = _zero(STEPS % 50 != 7, first)
    assert (finding.first_step, finding.last_step) == (0, 127)
    layers = [Layer(path, "Dense", "sign") for path in first]
    model = replace(MODEL, layers=tuple(layers))
    (finding,) = _zero(STEPS % 50 != 7, first, loss=1.6, model=model)
    assert finding.subject == "first/kernel"
    assert finding.evidence["zero"] == PATHS[:4]
    assert (finding.first_step, finding.last_step) == (0, 63)


def test_layers_later() -> None:
    """Two windows in a row, wherever they are, and nothing learned."""
    (finding,) = _zero(STEPS > 30, ("first", "second"))
    assert (finding.first_step, finding.last_step) == (64, 191)


@pytest.mark.parametrize(
    "healthy",
    [
        {"parts": ("first",), "loss": 1.0},  # learns on what it has
        {"parts": ("second",)},  # an expert that nobody asks
        {"parts": ("bias",)},  # invariant, as the bias of keys is
        {"parts": ("first/kernel", "second/kernel")},
        {"parts": ("first",), "where": STEPS < 40},  # a gate that opens
        {
            "parts": ("first", "second"),
            "extra": {("batch_example_std", "inputs"): 0.0},
        },
    ],
)
def test_a_part_is_zero_and_right_so(healthy: Any) -> None:
    """Lesser parts, parts of layers, inputs that say nothing."""
    assert _zero(**healthy) == []


def _head(left: float = 1.2, zero: Any = STEPS > 100, **extra: Any) -> Any:
    """Two outputs, `last` and `other`; the first one's gradients are 0."""
    columns = {
        (signal, f"{field}/{name}"): 1.0
        for signal in ("batch_min", "batch_max")
        for field in ("targets", "predictions")
        for name in ("last", "other")
    }
    for name, loss in (("last", left), ("other", 0.1)):
        part = f"{name}_loss"
        columns[("loss_component", part)] = loss
        columns[("component_constant_loss", part)] = 1.0
        columns[("component_lowest_loss", part)] = 0.0
    model = replace(MODEL, loss={"last": "mse", "other": "mae"})
    known = columns | {
        (k.split(".")[0], k.split(".")[1]): v for k, v in extra.items()
    }
    return _zero(zero, ("last",), 0.5, known, model=model)


def test_the_head_of_one_of_several_outputs() -> None:
    """Two windows, with an X-ray of them on which it has learned nothing."""
    (finding,) = _head()
    assert finding.evidence["zero"] == ["last/kernel", "last/bias"]
    assert (finding.first_step, finding.last_step) == (128, 255)
    assert finding.evidence["left_to_learn"] == pytest.approx(1.2)
    assert _head(left=0.5) == []  # has learned, and is content
    assert _head(zero=STEPS % 10 > 0) == []  # asked in some steps only
    assert _head(**{"component_constant_loss.last_loss": 0.0}) == []
    assert _head(**{"examples.": 8.0}) == []


def test_reasons() -> None:
    """Dead units, bounds, and gradients that float16 cannot hold."""
    first = ("first", "second")
    tiny = weights("last/kernel", gradient_norm=1e-8, gradient_max_abs=1e-9)
    tiny |= weights("last/bias", gradient_norm=1e-8, gradient_max_abs=1e-9)
    for extra, cause in (
        (outputs("second", silent_ratio=1.0), "dead_units"),
        (outputs("second", bound_ratio=1.0), "saturation"),
        (tiny, "float16_underflow"),
    ):
        (finding,) = _zero(True, first, extra=extra)
        assert finding.causes == (cause,)


def test_runs_that_are_too_short() -> None:
    """Nothing to say before three steps; nothing of a part before 64."""
    assert _zero(steps=2) == []
    assert _zero(parts=("first", "second"), steps=63) == []


def test_a_loss_of_signs_in_a_real_fit(tmp_path: Path) -> None:
    """A sign has a slope of 0 everywhere."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return 0.5 - 0.5 * keras.ops.mean(y_true * keras.ops.sign(y_pred), -1)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", loss)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    watch = GradWatch(tmp_path, rules=[ZeroGradient()])
    model.fit(x, np.sign(x[:, :1]), 16, verbose=0, callbacks=[watch])
    (finding,) = watch.findings
    assert finding.last_step == 2
