"""Updates next to weights: too large, too small, none at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Variable
from gradwatch.rules.frozen import FrozenVariable
from gradwatch.rules.movement import UpdateTooLarge
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

STEPS = np.arange(400)
XRAYS = (10, 20, 50, 100, 200, 300)
PLAN = Anatomy(
    planned_steps=400,
    variables=(
        Variable("a/kernel", (16, 4), "float32", True, 0.25),
        Variable("a/bias", (4,), "float32", True, 0.0),
    ),
)


def columns_of(loss: Any, ratio: Any, weight: Any = 2.0) -> Any:
    """The kernel began with a norm of 0.25 * 8 = 2."""
    noise = 0.02 * np.random.default_rng(0).normal(size=len(STEPS))
    return {
        Slot("loss"): np.broadcast_to(loss, len(STEPS)) + noise,
        Slot("update_applied"): 1.0,
        Slot("learning_rate"): 0.1,
        Slot("variable_gradient_norm", "a/kernel"): 1.0,
        Slot("variable_gradient_norm", "a/bias"): 1.0,
        Slot("variable_weight_norm", "a/kernel"): weight,
        Slot("variable_weight_norm", "a/bias"): 1e-3,
        Slot("variable_unit_spread", "a/kernel"): 1.0,
        Slot("variable_update_norm", "a/kernel"): np.multiply(ratio, weight),
        Slot("variable_update_norm", "a/bias"): 1e-2,
    }


def told(kind: Any, columns: Any, cuts: Any = ()) -> list[Any]:
    """Returns what a new rule says about a run of 400 steps."""
    return judged(kind(), columns, XRAYS, PLAN, cuts)


def test_updates_as_large_as_the_weights() -> None:
    """A warning if the loss is the worse for it, not else."""
    worse, better = 1 + STEPS / 100, np.exp(-STEPS / 100)
    (finding,) = told(UpdateTooLarge, columns_of(worse, 0.8))
    assert (finding.subject, finding.last_step) == ("a/kernel", 31)
    assert finding.evidence["update_to_weight_ratio"] == pytest.approx(0.8)
    assert told(UpdateTooLarge, columns_of(better, 0.8)) == []
    assert told(UpdateTooLarge, columns_of(worse, 0.05)) == []
    assert "moves a/kernel by 80% of its norm" in finding.message
    (grown,) = told(UpdateTooLarge, columns_of(worse, 0.1, weight=50.0))
    assert "a/kernel has grown to 25 times its first norm" in grown.message
    assert grown.evidence["weight_growth"] == pytest.approx(25)


def test_embeddings_begin_near_nothing() -> None:
    """They grow by decades when they learn; a kernel does not."""
    columns = columns_of(1 + STEPS / 100, 0.05, weight=50.0)
    assert len(told(UpdateTooLarge, columns)) == 1
    ids = "a/embeddings"
    table = Variable(ids, (16, 4), "float32", True, 0.25)
    plan = Anatomy(planned_steps=400, variables=(table, PLAN.variables[1]))
    named = {
        slot._replace(subject=slot.subject.replace("a/kernel", ids)): values
        for slot, values in columns.items()
    }
    assert judged(UpdateTooLarge(), named, XRAYS, plan) == []


def test_steps_that_have_replaced_the_weights() -> None:
    """A tenth of the norm at each step: if the loss has stayed bad."""
    flat, falls = np.full(len(STEPS), 1.1), 1.1 * np.exp(-STEPS / 200)
    bounds = {
        Slot("loss_component", "mse"): flat,
        Slot("component_constant_loss", "mse"): 1.0,
        Slot("component_lowest_loss", "mse"): 0.0,
        Slot("examples"): 64.0,
    }
    (finding,) = told(UpdateTooLarge, columns_of(flat, 0.12) | bounds)
    assert (finding.subject, finding.last_step) == ("a/kernel", 143)
    assert told(UpdateTooLarge, columns_of(flat, 0.05) | bounds) == []
    better = bounds | {Slot("loss_component", "mse"): falls}
    assert told(UpdateTooLarge, columns_of(falls, 0.12) | better) == []
    shrunk = columns_of(flat, 0.12, weight=0.5)
    assert told(UpdateTooLarge, shrunk | bounds) == []
    once = np.where(STEPS == 100, 0.4, 0.01)
    assert told(UpdateTooLarge, columns_of(flat, once) | bounds) == []


def test_variables_that_do_not_change() -> None:
    """No update at all, or one that is undone; steps that only collect."""
    columns = columns_of(2.0, 0.01, weight=2 + STEPS / 1000)
    assert told(FrozenVariable, columns) == []
    still = columns | {Slot("variable_update_norm", "a/kernel"): 0.0}
    (finding,) = told(FrozenVariable, still)
    assert (finding.subject, finding.last_step) == ("a/kernel", 50)
    back = columns | {Slot("variable_weight_norm", "a/kernel"): 2.0}
    assert [f.subject for f in told(FrozenVariable, back)] == ["a/kernel"]
    collects = still | {Slot("update_applied"): 0.0}
    assert told(FrozenVariable, collects) == []
    deaf = still | {Slot("variable_gradient_norm", "a/kernel"): 0.0}
    assert told(FrozenVariable, deaf) == []


def test_a_rate_of_zero_freezes_all() -> None:
    """The rate in force is said."""
    columns = columns_of(2.0, 0.0) | {
        Slot("variable_update_norm", "a/bias"): 0.0,
        Slot("learning_rate"): 0.0,
    }
    (finding,) = told(FrozenVariable, columns)
    assert finding.causes == ("learning_rate_low",)
    assert "No variable changes" in finding.message


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 399), max_size=9))
def test_movement_does_not_depend_on_cuts(cuts: Any) -> None:
    """Whatever the pump hands over at once."""
    cases = (
        (UpdateTooLarge, columns_of(1 + STEPS / 100, 0.8)),
        (FrozenVariable, columns_of(2.0, 0.0)),
    )
    for kind, columns in cases:
        whole = told(kind, columns)
        assert whole
        assert told(kind, columns, cuts) == whole
