"""Losses and gradients that leave all bounds, and those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.rules.climb import Climbing
from gradwatch.rules.divergence import DivergingLoss, ExplodingGradient
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

LOSS, NORM = Slot("loss"), Slot("gradient_norm")


def _noise(steps: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).lognormal(0, 0.2, steps)


@pytest.mark.parametrize(
    ("growth", "within"), [(30.0, 8), (3.0, 20), (1.25, 60), (1.03, 250)]
)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_loss_that_grows_by_a_factor(
    growth: float, within: int, scale: float
) -> None:
    """Each pace is seen, in any unit, long before float32 ends at 3e38."""
    steps = min(400, int(60 / np.log10(growth)))
    loss = scale * growth ** np.arange(steps) * _noise(steps)
    (finding,) = judged(DivergingLoss(), {LOSS: np.minimum(loss, 1e38)})
    assert finding.severity == "critical"
    assert finding.last_step <= within
    assert finding.evidence["loss_now"] < 1e30
    assert f"at step {finding.last_step}" in finding.message


def test_what_is_no_divergence() -> None:
    """Spikes, a bold start that recovers, restarts, a slow rise, decay."""
    n = 400
    steps = np.arange(n)
    noise = _noise(n)
    spikes = np.where(steps % 37 == 20, 1e5, 1.0)
    bold = 1 + 20 * np.exp(-((steps - 6) ** 2) / 8)
    restarts = np.exp(-(steps % 100) / 20)
    for loss in (spikes, bold, restarts, 1 + steps / n, np.exp(-steps / 50)):
        assert judged(DivergingLoss(), {LOSS: loss * noise}) == []


def _climbed(power: float, constant: float = 2.3) -> Any:
    """A classifier whose loss grows with a power of the steps."""
    part = "sparse_categorical_crossentropy"
    loss = 2.5 * (1 + np.arange(400) / 80) ** power * (0.9 + 0.1 * _noise(400))
    return {
        LOSS: loss,
        Slot("loss_component", part): loss,
        Slot("examples"): 32.0,
        Slot("component_constant_loss", part): constant,
        Slot("component_lowest_loss", part): 0.0,
    }


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(1, 399), max_size=9))
def test_a_loss_that_is_climbed_step_by_step(cuts: Any) -> None:
    """Steps of one length, uphill; no constant bounds the loss of a critic."""
    xrays = (10, 20, 50, 100, 200)
    (finding,) = judged(DivergingLoss(), _climbed(1.4), xrays, cuts=cuts)
    assert 127 <= finding.last_step < 300
    assert finding.causes[0] == "wrong_sign"
    assert "a constant answer has 2.3" in finding.message
    for healthy in (_climbed(1.4, np.nan), _climbed(1.4, 50.0), _climbed(0.4)):
        assert judged(DivergingLoss(), healthy, xrays, cuts=cuts) == []


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 199), max_size=9))
def test_climbs_do_not_depend_on_cuts(cuts: Any) -> None:
    """Rows may come one by one or all at once."""
    steps = np.arange(200)
    loss = _noise(200) * np.where(steps > 90, 1.1 ** (steps - 90.0), 1.0)
    whole = judged(DivergingLoss(), {LOSS: loss})
    assert judged(DivergingLoss(), {LOSS: loss}, cuts=cuts) == whole
    assert len(whole) == 1


def test_a_climb_says_what_was_before() -> None:
    """The largest value up to the step before, not one during the climb."""
    values = np.array([1.0, 5, 1, 1, 1, 1, 1000, 2000, 3000])
    steps = np.arange(9)
    climb = Climbing([(4, 3, 100.0)]).look(steps, values, steps >= 0)
    assert climb is not None
    assert (climb.first_step, climb.step) == (4, 8)
    assert (climb.before, climb.now) == (5.0, 3000.0)
    blind = Climbing([(4, 3, 100.0)]).look(steps, values, steps < 8)
    assert blind is None


def test_gradients_explode_while_the_loss_is_no_better() -> None:
    """Told with the numbers; critical before squares overflow."""
    norm = np.minimum(3.0 ** np.arange(40) * _noise(40), 1e18)
    found = judged(ExplodingGradient(), {LOSS: _noise(40) + 1, NORM: norm})
    assert [f.severity for f in found] == ["warning", "critical"]
    assert found[1].evidence["gradient_norm_now"] > 1e15
    assert found[0].last_step < found[1].last_step < 40


def test_gradients_that_grow_while_the_loss_falls() -> None:
    """An embedding that starts near 0 has ever larger gradients at first."""
    norm = 1.3 ** np.arange(60)
    loss = np.exp(-np.arange(60) / 20)
    assert judged(ExplodingGradient(), {LOSS: loss, NORM: norm}) == []
