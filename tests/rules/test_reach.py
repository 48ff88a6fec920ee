"""Plans that cannot change the weights: small steps, or a rate that is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy
from gradwatch.rules.reach import UpdateTooSmall
from gradwatch.rules.stalls import SlowLoss
from gradwatch.signals import Slot
from tests.rules.synthetic import judged
from tests.rules.test_movement import (
    PLAN,
    STEPS,
    XRAYS,
    columns_of,
    told,
)

RATE = Slot("learning_rate")


def test_updates_that_can_change_nothing() -> None:
    """400 steps of 1e-5 are 0.4 % of the norm; biases from 0 do not count."""
    (finding,) = told(UpdateTooSmall, columns_of(2.0, 1e-5))
    assert finding.last_step == 63
    assert finding.evidence["reach_of_plan"] == pytest.approx(0.004, rel=0.05)
    assert told(UpdateTooSmall, columns_of(2.0, 1e-3)) == []
    assert told(UpdateTooSmall, columns_of(2 * 0.98**STEPS, 1e-5)) == []


def test_a_rate_that_fades_before_anything_is_learned() -> None:
    """A schedule that is over too soon; one that begins is none."""
    ratio = 0.02 * 0.9**STEPS
    (finding,) = told(UpdateTooSmall, columns_of(2.0, ratio))
    assert finding.last_step < 200
    assert "steps that are left can change it" in finding.message
    warm_up = 1e-6 * 1.05**STEPS
    assert told(UpdateTooSmall, columns_of(2.0, warm_up)) == []


def test_a_warm_up_that_no_plan_sees_the_end_of() -> None:
    """Told after half of the plan: it would grow on as it does."""
    (finding,) = told(UpdateTooSmall, columns_of(2.0, 1e-7 * STEPS))
    assert 200 <= finding.last_step < 220
    reach = finding.evidence["reach_of_plan"]
    assert reach == pytest.approx(1e-7 * 400**2 / 2, rel=0.1)
    assert told(UpdateTooSmall, columns_of(2.0, 1e-6 * STEPS)) == []


def test_steps_since_the_last_x_ray_count() -> None:
    """Fast steps have few X-rays: 400 steps of 1e-4 are 4 % all the same."""
    columns = columns_of(2.0, 1e-4)
    assert judged(UpdateTooSmall(), columns, (10, 20, 30), PLAN) == []


def test_steps_that_only_collect_move_nothing() -> None:
    """400 steps of 1e-4 are 4 % of the norm, or 0.5 % in 50 updates."""
    columns = columns_of(2.0, 1e-4)
    assert told(UpdateTooSmall, columns) == []
    collects = replace(PLAN, optimizer={"gradient_accumulation_steps": 8})
    (finding,) = judged(UpdateTooSmall(), columns, XRAYS, collects)
    assert finding.evidence["reach_of_plan"] == pytest.approx(0.005, rel=0.05)


def test_a_schedule_that_is_over_is_named() -> None:
    """X-rays have seen it: the rate before and now."""
    rate = _cosine(100)
    columns = columns_of(2.0, rate / 10) | {RATE: rate}
    (finding,) = told(UpdateTooSmall, columns)
    assert "The learning rate is 0; it was 0.065 at step" in finding.message
    assert "counts batches" in finding.advice


def _without_updates(loss: Any, rate: Any) -> Any:
    """No X-ray meets a step that applies, as accumulation may have it."""
    return columns_of(loss, 0.0) | {Slot("update_applied"): 0.0, RATE: rate}


def _cosine(end: int) -> Any:
    """A rate that warms up and is 0 from a step on."""
    share = np.minimum(STEPS / end, 1)
    return 0.1 * (np.cos(np.pi * share) + 1) / 2 * np.minimum(STEPS / 15, 1)


def test_a_rate_that_is_gone_while_the_loss_is_high() -> None:
    """Said by the rates of all steps; a schedule that ends late is none."""
    (finding,) = told(UpdateTooSmall, _without_updates(2.0, _cosine(100)))
    assert 128 <= finding.last_step < 160
    assert finding.evidence["learning_rate_before"] == pytest.approx(0.1, 0.1)
    assert "since step 112 the learning rate is at" in finding.message
    assert "counts batches" in finding.advice
    low = 2.0 * np.exp(-STEPS / 30)
    assert told(UpdateTooSmall, _without_updates(low, _cosine(100))) == []
    assert told(UpdateTooSmall, _without_updates(2.0, _cosine(390))) == []
    restarts = np.tile(_cosine(50)[:50], 8)
    assert told(UpdateTooSmall, _without_updates(2.0, restarts)) == []
    assert told(UpdateTooSmall, _without_updates(2.0, 0.0)) == []


def test_a_scale_that_is_far_off_is_said_instead_of_the_rate() -> None:
    """Adam remembers gradients of a loss that began at 1e16."""
    bounds = {
        Slot("loss_component", "mse"): 1e16 * 0.9**STEPS + 1e5 - STEPS,
        Slot("component_constant_loss", "mse"): 2.0,
        Slot("component_lowest_loss", "mse"): 0.0,
        Slot("examples"): 32.0,
    }
    columns = columns_of(2.0, 1e-5)
    (finding,) = told(UpdateTooSmall, columns | bounds)
    assert finding.causes[0] == "unscaled_input"
    assert "where a constant answer has 2.0" in finding.message
    assert "Scale inputs and targets" in finding.advice
    plan = Anatomy(planned_steps=400)
    (slow,) = judged(SlowLoss(), columns | bounds, XRAYS, plan)
    assert "Scale inputs and targets" in slow.advice
    near = bounds | {Slot("loss_component", "mse"): 2.0 + 0 * STEPS}
    (finding,) = told(UpdateTooSmall, columns | near)
    assert finding.causes == ("learning_rate_low",)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 399), max_size=9))
def test_reach_does_not_depend_on_cuts(cuts: Any) -> None:
    """Whatever the pump hands over at once."""
    for columns in (
        columns_of(2.0, 1e-5),
        _without_updates(2.0, _cosine(100)),
    ):
        whole = told(UpdateTooSmall, columns)
        assert len(whole) == 1
        inside = sorted({cut for cut in cuts if cut < 400})
        assert told(UpdateTooSmall, columns, inside) == whole
