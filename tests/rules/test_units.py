"""Dead and saturated units: what must be there, and what is healthy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Finding, Layer
from gradwatch.rules.saturation import SaturatedUnits
from gradwatch.rules.units import DeadUnits
from tests.rules.made import dense, judged, learning, outputs, weights

MODEL = dense(("hidden", (64, 32), 0.1), ("output", (32, 10), 0.1))
BOUNDED = dense(
    ("hidden", (64, 32), 0.1), ("output", (32, 10), 0.1), activation="tanh"
)
GONE = {"gradient_norm": 0.0, "zero_gradient_ratio": 1.0, "update_norm": 0.0}
FALLING = 2.3 * np.exp(-np.arange(300) / 20)


def _dead(
    loss: Any = 2.31,
    silent: Any = 1.0,
    gradient: Any = None,
    cuts: Any = (),
    extra: Any = None,
    model: Anatomy = MODEL,
) -> list[Finding]:
    gone = GONE if gradient is None else {"gradient_norm": gradient}
    columns = {
        **learning(loss),
        **weights("hidden/kernel", **gone),
        **weights("hidden/bias", **gone),
        **weights("output/kernel"),
        **weights("output/bias"),
        **outputs("hidden", silent_ratio=silent, mean=0.0, std=0.0),
        **(extra or {}),
    }
    return judged(DeadUnits(), model, columns, cuts=cuts)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_a_dead_layer(cuts: set[int]) -> None:
    """All units silent at two X-rays in a row, told once, at the second."""
    (finding,) = _dead(cuts=cuts)
    assert (finding.severity, finding.subject) == ("warning", "hidden")
    assert (finding.first_step, finding.last_step) == (10, 20)
    assert finding.evidence["silent_ratio"] == {"hidden": 1.0}


@pytest.mark.parametrize(
    "healthy",
    [
        {"loss": FALLING},  # learns: a branch of several, say
        {"silent": 0.5},
        {"silent": np.where(np.arange(300) == 20, 1.0, 0.5), "gradient": 0.1},
        {"extra": {("batch_example_std", "inputs"): 0.0}},
    ],
)
def test_what_looks_dead_and_is_not(healthy: Any) -> None:
    """One X-ray, a layer that is not needed, or inputs that say nothing."""
    assert _dead(**healthy) == []


def test_a_dead_layer_with_a_regulariser() -> None:
    """Its gradient is not 0: a third X-ray must say the same."""
    (finding,) = _dead(gradient=0.1)
    assert (finding.first_step, finding.last_step) == (10, 50)


@pytest.mark.parametrize(
    ("mean", "std", "told"), [(0.1, 0.25, True), (0.01, 0.25, False)]
)
def test_most_units_dead(mean: float, std: float, told: bool) -> None:
    """Told where units that live fire often; rare ones are chance."""
    sparse = outputs("hidden", silent_ratio=0.95, mean=mean, std=std)
    found = _dead(gradient=0.1, extra=sparse)
    assert bool(found) == told
    for finding in found:
        assert finding.last_step == 50


@pytest.mark.parametrize("gradient", [0.0, 0.1])
def test_a_dead_branch_of_several(gradient: float) -> None:
    """Predictions depend on the inputs by way of the others."""
    extra = {
        ("batch_mean", "predictions"): 0.1,
        ("batch_std", "predictions"): 0.05,
        ("batch_example_std", "predictions"): 0.05,
    }
    assert _dead(gradient=gradient, extra=extra) == []


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_killed_on_the_way(cuts: set[int]) -> None:
    """One X-ray is enough where the weights had no gradient for long."""
    for died, told in ((30, 50), (190, 300)):
        late = np.arange(300) >= died
        silent, gradient = np.where(late, 1.0, 0.2), np.where(late, 0.0, 0.1)
        found = _dead(silent=silent, gradient=gradient, cuts=cuts)
        assert [f.last_step for f in found] == ([told] if told < 300 else [])
        for finding in found:
            assert finding.causes[0] == "learning_rate_high"


def test_a_relu_of_its_own_after_a_layer() -> None:
    """A layer without weights counts; the first one with weights is named."""
    relu = Layer("relu", "ReLU", "")
    model = Anatomy(layers=(relu,), variables=MODEL.variables)
    extra = outputs("relu", silent_ratio=1.0, mean=0.0, std=0.0)
    (finding,) = _dead(extra=extra, model=model)
    assert finding.subject == "relu"
    both = Anatomy(layers=(relu, *MODEL.layers), variables=MODEL.variables)
    (finding,) = _dead(extra=extra, model=both)
    assert finding.subject == "hidden"


def _saturated(
    loss: Any = 2.0,
    bound: Any = 0.97,
    mean: Any = 0.0,
    std: Any = 0.98,
    zeros: Any = 0.3,
    extra: Any = None,
    drop: str = "",
    cuts: Any = (),
) -> list[Finding]:
    part = {"zero_gradient_ratio": zeros}
    columns = {
        **learning(loss),
        **weights("hidden/kernel", **part),
        **weights("hidden/bias", **part),
        **weights("output/kernel"),
        **weights("output/bias"),
        **outputs("hidden", bound_ratio=bound, mean=mean, std=std),
        **outputs("output", bound_ratio=1.0, mean=0.0, std=1.0),
        **(extra or {}),
    }
    columns = {k: v for k, v in columns.items() if k[0] != (drop or None)}
    return judged(SaturatedUnits(), BOUNDED, columns, cuts=cuts)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_a_saturated_layer(cuts: set[int]) -> None:
    """At both bounds at three X-rays in a row; the output may be as sure."""
    (finding,) = _saturated(cuts=cuts)
    assert (finding.severity, finding.subject) == ("warning", "hidden")
    assert (finding.first_step, finding.last_step) == (10, 50)


@pytest.mark.parametrize(
    "healthy",
    [
        {"loss": FALLING},  # binary codes, and it learns
        {"bound": 0.8},
        {"mean": 0.99, "std": 0.01},  # gates that are open
        {"drop": "component_constant_loss"},  # a generator's pixels, perhaps
        {
            "extra": {
                ("batch_mean", "predictions"): 0.0,
                ("batch_std", "predictions"): 0.98,
            }
        },
    ],
)
def test_what_looks_saturated_and_is_not(healthy: Any) -> None:
    """Sure outputs, gates, codes."""
    assert _saturated(**healthy) == []


@pytest.mark.parametrize(
    ("bound", "moved", "told"),
    [
        (0.97, 1e-6, True),
        (0.97, 1e-3, False),
        (np.where(np.arange(300) < 15, 0.5, 0.97), 1e-6, False),
    ],
    ids=["stays", "trains", "was open once"],
)
def test_a_layer_that_stays_as_it_began(
    bound: Any, moved: float, told: bool
) -> None:
    """Others learn on what it gives by chance."""
    extra = weights("hidden/kernel", update_norm=moved)
    found = _saturated(loss=FALLING, bound=bound, extra=extra)
    assert bool(found) == told


def test_saturated_for_good() -> None:
    """At one bound, and nothing comes back: also if targets are unknown."""
    shut = {"mean": 1.0, "std": 0.0, "zeros": 1.0}
    for drop in ("", "component_constant_loss"):
        (finding,) = _saturated(**shut, drop=drop)
        assert finding.causes[0] == "saturation"
