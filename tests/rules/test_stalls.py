"""Runs that go nowhere, slowly, or are where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy
from gradwatch.rules.floors import LossFloor
from gradwatch.rules.stalls import (
    ConstantOutput,
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
    (finding,) = judged(StalledLoss(), _columns(2.4 + _noise()), XRAYS, PLAN)
    assert 300 <= finding.last_step < 320
    assert "which a constant answer has" in finding.message
    assert _told(_columns(2.4 + _noise())) == ["stalled_loss"]


def test_the_same_for_every_example() -> None:
    """If predictions hardly vary, this is what is said."""
    columns = _columns(2.3 + _noise())
    columns[Slot("batch_example_std", "predictions")] = 0.01
    assert _told(columns) == ["constant_output"]
    columns[Slot("batch_example_std", "inputs")] = 0.0
    (finding,) = judged(ConstantOutput(), columns, XRAYS, PLAN)
    assert (finding.subject, finding.last_step) == ("inputs", 31)


def test_old_x_rays_say_nothing_of_what_was_learned_since() -> None:
    """Without a constant to compare with, a loss that fell says enough."""
    unknown = {
        Slot("component_constant_loss", "sparse_categorical_crossentropy"): (
            np.nan
        ),
        Slot("batch_example_std", "predictions"): np.where(
            STEPS < 15, 0.2, 0.01
        ),
    }
    learned = 0.2 + 2.1 * np.exp(-np.maximum(STEPS - 20, 0) / 60) + _noise() / 9
    for loss, right in ((2.3 + _noise(), ["constant_output"]), (learned, [])):
        columns = _columns(loss) | unknown
        found = judged(ConstantOutput(), columns, (10, 20, 25), PLAN)
        assert [finding.rule for finding in found] == right


def test_a_constant_from_few_examples() -> None:
    """Of twenty, nine classes are seen, and 2.07 is lost where 2.3 is known."""
    few = {Slot("examples"): 20.0, Slot("batch_distinct", "targets"): 9.0}
    part = Slot("loss_component", "sparse_categorical_crossentropy")
    columns = _columns(2.4 + _noise(), 2.07) | few
    columns |= {part: 2.4 + 0.0 * STEPS}
    assert _told(columns) == ["stalled_loss"]
    same = {Slot("batch_example_std", "predictions"): 0.01}
    assert _told(columns | same) == ["constant_output"]
    better = {part: 1.9 + 0.0 * STEPS}
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


def _at(values: dict[int, float], otherwise: float) -> Any:
    """A column that has these values at some steps."""
    column = np.full(len(STEPS), otherwise)
    column[list(values)] = list(values.values())
    return column


def test_batches_without_the_rare_class_say_nothing() -> None:
    """A constant is the best answer to them; it is not to all the others."""
    loss = 0.09 * np.exp(-STEPS / 40) + 0.005 + 1e-3 * _noise()
    alike = _columns(loss, constant=1.2e-7, lowest=1.2e-7)
    assert _told(alike) == []
    rare = _at({50: 0.08, 200: 0.08}, 1.2e-7)
    assert _told(_columns(loss, constant=rare, lowest=1.2e-7)) == []
    nothing = 0.085 + 1e-3 * _noise()
    stalled = _columns(nothing, constant=rare, lowest=1.2e-7)
    assert _told(stalled) == ["stalled_loss"]


def test_a_batch_that_comes_again_has_one_voice() -> None:
    """X-rays that meet the same odd batch each epoch are no majority."""
    loss = 1.0 + 1.3 * np.exp(-STEPS / 30) + _noise()
    constant = _at({10: 2.3, 20: 2.2}, 0.9)
    columns = _columns(loss, constant=constant)
    assert "stalled_loss" in _told(columns)
    batch = {Slot("batch_mean", "inputs"): _at({10: 0.4, 20: 0.5}, 0.6)}
    assert _told(columns | batch) == []


def test_who_beats_the_constant_of_each_batch_has_learned() -> None:
    """A loss that differs more between batches than by what was learned."""
    part = Slot("loss_component", "sparse_categorical_crossentropy")
    levels = {10: 4.0, 20: 1.0, 50: 3.0, 100: 1.5, 200: 1.0, 300: 1.2}
    constants = _at(levels, 2.3)
    loss = _at({step: 0.5 * level for step, level in levels.items()}, 2.3)
    columns = _columns(2.3 + _noise(), constant=constants) | {part: loss}
    assert _told(columns) == []
    lost = columns | {part: _at({300: 1.2}, 2.3)}
    assert _told(lost) == ["stalled_loss"]


def test_an_unknown_floor_may_be_high() -> None:
    """A loss of one's own that has fallen by a tenth and rests there."""
    names = ("component_constant_loss", "component_lowest_loss")
    loss = 2.83 + 0.3 * np.exp(-STEPS / 30) + 0.1 * _noise()
    columns = _columns(loss) | {
        Slot(name, "sparse_categorical_crossentropy"): np.nan for name in names
    }
    assert "stalled_loss" not in _told(columns)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, 399), max_size=9))
def test_stalls_do_not_depend_on_cuts(cuts: Any) -> None:
    """Nor do floors."""
    for loss in (2.4 + _noise(), 2.35 - 4e-4 * STEPS + 0.2 * _noise()):
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


def _regression(gain: float) -> Any:
    """Squared errors that gain the share `gain` of their own constant's."""
    return {
        Slot("loss"): 1.0 - gain,
        Slot("loss_component", "mse"): 1.0 - gain,
        Slot("examples"): 64.0,
        Slot("component_constant_loss", "mse"): 1.0,
        Slot("component_lowest_loss", "mse"): 0.0,
        Slot("batch_mean", "targets"): STEPS / 100,
        Slot("batch_example_std", "inputs"): 1.0,
        Slot("batch_example_std", "targets"): 1.0,
        Slot("batch_example_std", "predictions"): 0.25,
        Slot("batch_integer_ratio", "targets"): 0.0,
        Slot("batch_min", "predictions"): -1.0,
        Slot("batch_max", "predictions"): 1.0,
    }


def test_who_knows_what_little_there_is_to_know() -> None:
    """Predictions that gain what their spread explains are no stall."""
    spread = 0.25**2
    assert _told(_regression(0.6 * spread)) == []
    assert _told(_regression(-0.1 * spread)) == []
    assert _told(_regression(-spread)) == ["stalled_loss"]
    unknown = {Slot("batch_example_std", "targets"): np.nan}
    assert _told(_regression(0.6 * spread) | unknown) == []
    assert _told(_regression(0.1 * spread) | unknown) == ["stalled_loss"]
    lost = np.where(STEPS < 250, 0.3, 2.4) + _noise()
    assert _told(_columns(lost)) == ["stalled_loss"]


def _said(columns: Any) -> str:
    (finding,) = judged(StalledLoss(), columns, XRAYS, PLAN)
    return finding.message


def test_a_stall_is_told_as_it_is() -> None:
    """No better, a little better, or worse than it was."""
    assert "is no better than 1.016, which a" in _said(_regression(-0.1))
    part = Slot("loss_component", "mse")
    little = 1.0 + _noise()
    little[list(XRAYS)] = 1.1
    better = _regression(0.0) | {part: little}
    assert "is only 1." in _said(better)
    assert "% below 1.016, which a" in _said(better)
    alone = _noise() / 100 - 0.2 * np.exp(-STEPS / 20)
    assert "it has risen from -0.1344, where it" in _said({Slot("loss"): alone})
    higher = _regression(0.0) | {part: 1.1 - 0.5 * np.exp(-STEPS / 20)}
    assert "a constant answer has, and has risen from 0." in _said(higher)


def test_sorted_data_are_said() -> None:
    """Batches of one class each: the advice is to shuffle."""
    loss = np.where(STEPS < 2, 2.0, 4 + _noise())
    classes = _at(dict(zip(XRAYS, (1.0, 3.0, 8.0, 7.0, 5.0, 0.0))), 0.0)
    columns = _columns(loss, constant=1.2e-7, lowest=1.2e-7) | {
        Slot("batch_mean", "targets"): classes,
        Slot("batch_example_std", "targets"): 0.0,
    }
    (finding,) = judged(StalledLoss(), columns, XRAYS, PLAN)
    assert finding.causes == ("data",)
    assert "not shuffled" in finding.message
    assert finding.advice.startswith("Shuffle")
