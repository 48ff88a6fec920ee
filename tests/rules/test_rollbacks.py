"""Rollbacks are told; and by themselves they are no other fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gradwatch.records import Anatomy, Finding
from gradwatch.rules.frozen import FrozenVariable
from gradwatch.rules.rollbacks import RolledBack
from gradwatch.rules.spikes import LossSpike
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

BACK = Slot("rollback_steps")
STEPS = np.arange(320)


def _judge(back: Any, most: int, cuts: Sequence[int] = ()) -> list[Finding]:
    anatomy = Anatomy(max_rollbacks=most, rollback_factor=0.25)
    return judged(RolledBack(), {BACK: back}, anatomy=anatomy, cuts=cuts)


@pytest.mark.parametrize("cuts", [(), (3,), range(1, 12)])
def test_each_is_told_and_the_last_one_is_critical(cuts: Sequence[int]) -> None:
    """Which step, where to, which of how many; then it begins anew."""
    back = np.zeros(12)
    back[[2, 5, 8, 11]] = 3, 4, 9, 1
    found = _judge(back, 2, cuts)
    assert [f.severity for f in found] == [
        "warning",
        "warning",
        "critical",
        "warning",
    ]
    assert [f.first_step for f in found] == [2, 5, 8, 11]
    assert [f.evidence["step"] for f in found] == [0, 2, 0, 11]
    assert "multiplied by 0.25 (2 of 2 times)" in found[1].message
    assert "before step 0, and training ended" in found[2].message


def test_other_policies_measure_none() -> None:
    """Without the signal there is nothing to tell."""
    assert judged(RolledBack(), {Slot("loss"): np.ones(9)}) == []


def test_a_model_that_went_back_has_not_lost_its_loss() -> None:
    """A spike, and the level of an earlier state: no spike without return."""
    random = np.random.default_rng(0)
    loss = np.exp(-STEPS / 60) + 0.01 * random.normal(size=len(STEPS))
    norm = random.lognormal(0, 0.3, len(STEPS))
    spike = slice(150, 154)
    loss[spike], norm[spike] = 400.0, 1e4
    loss[154:] = loss[4 : len(STEPS) - 150]
    back = np.where(STEPS == 153, 150, 0)
    columns = {Slot("loss"): loss, Slot("gradient_norm"): norm}
    assert len(judged(LossSpike(), columns)) == 1
    assert judged(LossSpike(), {**columns, BACK: back}) == []


@pytest.mark.parametrize("cuts", [(), (90,), (60, 120, 180)])
def test_weights_that_went_back_are_not_frozen(cuts: Sequence[int]) -> None:
    """X-rays of the same state, once more after each rollback."""
    columns = {
        Slot("learning_rate"): 0.1,
        Slot("update_applied"): 1.0,
        Slot("variable_gradient_norm", "a/kernel"): 1.0,
        Slot("variable_weight_norm", "a/kernel"): 2.0,
        Slot("variable_update_norm", "a/kernel"): 0.1,
        Slot("variable_unit_spread", "a/kernel"): 1.0,
    }
    xrays = [50, 100, 150, 200]
    back = np.where(np.isin(STEPS, [99, 149, 199]), 50, 0)
    anatomy = Anatomy(max_rollbacks=3)

    def told(columns: Any) -> list[Finding]:
        rule = FrozenVariable()
        wide = {slot: np.broadcast_to(v, 320) for slot, v in columns.items()}
        return judged(rule, wide, xrays, anatomy, cuts)

    assert len(told(columns)) == 1
    assert told({**columns, BACK: back}) == []
