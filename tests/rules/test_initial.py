"""How weights begin: copies, far too large or small, and healthy zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch import GradWatch
from gradwatch.records import Anatomy, Finding
from gradwatch.rules.initial import BadInitialisation
from gradwatch.rules.symmetry import SymmetricWeights
from tests.rules.made import dense, judged, learning, weights

MODEL = dense(("hidden", (64, 32), 0.1), ("output", (32, 10), 0.1))
ENTROPY = "sparse_categorical_crossentropy"


def _copies(cuts: Any = (), **values: Any) -> list[Finding]:
    copies = {"unit_spread": 1e-7, **values}
    columns = {
        **learning(),
        **weights("hidden/kernel", **copies),
        **weights("output/kernel"),
    }
    return judged(SymmetricWeights(), MODEL, columns, cuts=cuts)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_units_that_are_copies(cuts: set[int]) -> None:
    """Told at the second X-ray."""
    (finding,) = _copies(cuts)
    assert finding.subject == "hidden/kernel"
    assert (finding.first_step, finding.last_step) == (10, 20)
    assert "32 units" in finding.message


@pytest.mark.parametrize(
    "healthy",
    [
        {"unit_spread": 1e-3},  # as far apart as a step goes
        {"update_norm": 0.0},  # is not trained now
        {"update_norm": 1e-6},  # nor this one, as far as rounding tells
        {"weight_norm": 0.0, "unit_spread": 0.0},
    ],
)
def test_units_that_are_not_copies(healthy: Any) -> None:
    """Scales that began at 1, weights that stand still, zeros."""
    assert _copies(**healthy) == []


def _began(
    model: Anatomy, loss: Any = 2.3, cuts: Any = (), **stuck: Any
) -> list[Finding]:
    columns = learning(loss)
    for variable in model.variables:
        values = {} if "output" in variable.path else stuck
        columns |= weights(variable.path, **values)
    return judged(BadInitialisation(), model, columns, cuts=cuts)


def _model(scale: float, hidden: int = 2, **facts: Any) -> Anatomy:
    layers = [(f"hidden_{i}", (64, 64), scale) for i in range(hidden)]
    return dense(*layers, ("output", (64, 10), 0.15), **facts)


def _first(loss: float) -> Any:
    return np.where(np.arange(300) == 0, loss, 2.3)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_weights_far_too_large(cuts: set[int]) -> None:
    """Told at the first step for a cross-entropy, else at the first X-ray."""
    for loss, step in ((ENTROPY, 0), ("mse", 10)):
        (finding,) = _began(_model(5.0, loss=loss), _first(900.0), cuts)
        assert finding.subject == "hidden_0/kernel"
        assert finding.last_step == step
        assert finding.evidence["amplified_by"] > 100


@pytest.mark.parametrize(
    ("scale", "first"),
    [(5.0, 2.5), (0.18, 900.0), (0.4, 900.0)],
    ids=["normalised behind", "large targets", "a little large"],
)
def test_large_without_harm(scale: float, first: float) -> None:
    """It takes both: decades of scale, and a loss that shows them."""
    for loss in (ENTROPY, "mse"):
        assert _began(_model(scale, loss=loss), _first(first)) == []


TINY = {"update_norm": 1e-8}
ZERO = {
    "gradient_norm": 0.0,
    "weight_norm": 0.0,
    "update_norm": 0.0,
    "zero_gradient_ratio": 1.0,
}


@pytest.mark.parametrize(("scale", "stuck"), [(1e-4, TINY), (0.0, ZERO)])
def test_weights_far_too_small(scale: float, stuck: Any) -> None:
    """Nothing gets through: told at the second X-ray."""
    (finding,) = _began(_model(scale), **stuck)
    assert finding.subject == "hidden_0/kernel"
    assert (finding.first_step, finding.last_step) == (10, 20)


@pytest.mark.parametrize(
    ("model", "loss", "stuck"),
    [
        (_model(0.1), 2.3, TINY),  # the rate is too low, not the scale
        (_model(1e-4), 1.0, TINY),  # learns all the same
        (_model(1e-4), 2.3, {"update_norm": 1e-3}),  # finds its way
        (_model(1e-4, 1), 2.3, TINY),  # a head that begins small
        (_model(0.0), 2.3, {"update_norm": 1e-3}),  # zeros with a gradient
    ],
)
def test_small_without_harm(model: Any, loss: float, stuck: Any) -> None:
    """One small head, zeros that move, a model that learns."""
    assert _began(model, loss, **stuck) == []


def test_predictions_that_depend_on_inputs() -> None:
    """Something gets through, by another way."""
    for scale, stuck in ((1e-4, TINY), (0.0, ZERO)):
        columns = learning()
        for path in ("hidden_0/kernel", "hidden_1/kernel"):
            columns |= weights(path, **stuck)
        columns |= weights("output/kernel")
        columns |= {
            ("batch_mean", "predictions"): 0.1,
            ("batch_std", "predictions"): 0.01,
            ("batch_example_std", "predictions"): 0.01,
        }
        assert judged(BadInitialisation(), _model(scale), columns) == []


def test_a_rate_of_zero_is_no_fault_of_weights() -> None:
    """In a warm-up nothing moves yet."""
    model = _model(1e-4)
    columns = learning(2.3)
    for variable in model.variables:
        columns |= weights(variable.path, update_norm=0.0)
    assert judged(BadInitialisation(), model, columns) == []


def test_a_constant_start_in_a_real_fit(tmp_path: Path) -> None:
    """The hidden units stay copies; the output has one and cannot."""
    start = {"kernel_initializer": "ones"}
    layers = [
        keras.layers.Dense(6, "tanh", name="hidden", **start),
        keras.layers.Dense(1, name="output", **start),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    watch = GradWatch(tmp_path, rules=[SymmetricWeights()])
    model.fit(x, x[:, :1], 16, verbose=0, callbacks=[watch])
    (finding,) = watch.findings
    assert finding.subject.endswith("hidden/kernel")
