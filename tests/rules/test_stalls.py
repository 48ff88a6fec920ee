"""Runs that go nowhere, slowly, or are where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy
from gradwatch.rules.stalls import (
    ConstantOutput,
    LossFloor,
    SlowLoss,
    StalledLoss,
)
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

RULES = (StalledLoss, ConstantOutput, LossFloor, SlowLoss)
STEPS = np.arange(400)
XRAYS = (10, 20, 50, 100, 200, 300)
PLAN = Anatomy(planned_steps=400)


def _noise(seed: int = 0) -> Any:
    return 0.05 * np.random.default_rng(seed).normal(size=len(STEPS))


def _columns(loss: Any, constant: float = 2.3, lowest: float = 0.0) -> Any:
    """A classifier of ten classes."""
    part = "sparse_categorical_crossentropy"
    return {
        Slot("loss"): loss,
        Slot("loss_component", part): loss,
        Slot("examples"): 64.0,
        Slot("batch_distinct", "targets"): 10.0,
        Slot("component_constant_loss", part): constant,
        Slot("component_lowest_loss", part): lowest,
        Slot("batch_example_std", "inputs"): 0.4,
        Slot("batch_example_std", "targets"): 2.9,
        Slot("batch_example_std", "predictions"): 0.2,
        Slot("batch_mean", "predictions"): 0.1,
        Slot("batch_min", "predictions"): 0.0,
        Slot("batch_max", "predictions"): 0.9,
        Slot("batch_unit_row_ratio", "predictions"): 1.0,
        Slot("batch_integer_ratio", "targets"): 1.0,
    }


def _told(columns: Any, cuts: Any = ()) -> list[str]:
    found = [judged(kind(), columns, XRAYS, PLAN, cuts) for kind in RULES]
    return [finding.rule for each in found for finding in each]


def test_no_better_than_a_constant_answer() -> None:
    """Told when three quarters of the plan are over, not before."""
    (finding,) = judged(StalledLoss(), _columns(2.3 + _noise()), XRAYS, PLAN)
    assert 300 <= finding.last_step < 320
    assert "which a constant answer has" in finding.message
    assert _told(_columns(2.3 + _noise())) == ["stalled_loss"]


def test_the_same_for_every_example() -> None:
    """If predictions hardly vary, this is what is said."""
    columns = _columns(2.3 + _noise())
    columns[Slot("batch_example_std", "predictions")] = 0.01
    assert _told(columns) == ["constant_output"]
    columns[Slot("batch_example_std", "inputs")] = 0.0
    (finding,) = judged(ConstantOutput(), columns, XRAYS, PLAN)
    assert (finding.subject, finding.last_step) == ("inputs", 31)


def test_a_constant_from_few_examples() -> None:
    """It is corrected upwards, too far perhaps; X-rays on their own are not."""
    few = {Slot("examples"): 20.0}
    part = Slot("loss_component", "sparse_categorical_crossentropy")
    columns = _columns(2.3 + _noise()) | few | {part: 2.3 + 0.0 * STEPS}
    assert _told(columns) == ["stalled_loss"]
    same = {Slot("batch_example_std", "predictions"): 0.01}
    assert _told(columns | same) == ["constant_output"]
    better = {part: 2.1 + 0.0 * STEPS}
    assert _told(columns | same | better) == []


def test_without_bounds_the_first_loss_counts() -> None:
    """A loss of one's own, alone in the Schema."""
    assert _told({Slot("loss"): 7 + _noise()}) == ["stalled_loss"]
    assert _told({Slot("loss"): 7 * np.exp(-STEPS / 100) + _noise()}) == []


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(3))
def test_healthy_runs(seed: int, unit: float) -> None:
    """Fast, with a late start after a plateau, converged and idle; any unit."""
    fast = 2.3 * np.exp(-STEPS / 40)
    late = np.where(STEPS < 220, 2.3, 2.3 * np.exp(-(STEPS - 220) / 40))
    idle = np.full(len(STEPS), 0.4)
    for loss in (fast, late, idle):
        columns = _columns(unit * (loss + _noise(seed)), 2.3 * unit)
        assert _told(columns) == []


def test_a_slow_loss_is_worth_knowing() -> None:
    """It falls, and would need many times the plan."""
    (finding,) = judged(
        SlowLoss(), _columns(2.35 - 4e-4 * STEPS + 0.2 * _noise()), XRAYS, PLAN
    )
    assert finding.severity == "info"
    assert "400 that are planned" in finding.message


def test_a_floor_is_no_stall() -> None:
    """Soft targets: the loss can fall no more; said when half is over."""
    loss = 0.5 + 0.2 * np.exp(-STEPS / 40) + 0.02 * _noise()
    columns = _columns(loss, constant=0.69, lowest=0.5)
    assert _told(columns) == ["loss_floor"]


def test_adversaries_are_not_judged() -> None:
    """Losses of several optimizers have no common progress."""
    columns = {
        Slot("loss"): 2 + _noise(),
        Slot("optimizer_gradient_norm", "critic"): 1.0,
    }
    assert _told(columns) == []


def test_small_batches_say_nothing_of_a_constant() -> None:
    """Two examples have one label or two: their own constant is too good."""
    loss = 0.9 + 1.4 * np.exp(-STEPS / 30) + _noise()
    columns = _columns(loss, constant=0.4)
    assert "stalled_loss" in _told(columns)
    assert _told(columns | {Slot("examples"): 2.0}) == []


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 399), max_size=9))
def test_stalls_do_not_depend_on_cuts(cuts: Any) -> None:
    """Nor do floors."""
    for loss in (2.3 + _noise(), 2.35 - 4e-4 * STEPS + 0.2 * _noise()):
        columns = _columns(loss)
        found = _told(columns)
        assert len(found) == 1
        assert _told(columns, cuts) == found


def test_long_runs_keep_little() -> None:
    """Of 20,000 steps as much is kept as of 4,000, and a stall is seen."""
    n = 20_000
    loss = 1 + 0.1 * np.random.default_rng(0).normal(size=n)
    rule = StalledLoss()
    plan = Anatomy(planned_steps=n)
    (finding,) = judged(rule, {Slot("loss"): loss}, (), plan)
    assert 7_500 <= finding.last_step < 8_200
    assert len(rule._progress._medians) <= 128
