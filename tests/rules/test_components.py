"""Parts of a loss: synthetic gradients and losses, cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Block, Finding, Layer, Schema
from gradwatch.rules.components import (
    ConflictingComponents,
    DominantComponent,
)
from gradwatch.signals import Slot

STEPS = 240
XRAYS = (10, 20, 50, 100, 200)
FALLS = np.linspace(1, 0.2, STEPS)
IDLE = np.ones(STEPS)
FACTS = Anatomy(layers=(Layer("m/hidden", "Dense", "relu"),))


def _judge(
    rule: Any,
    parts: dict[str, tuple[Any, float, Any, float]],
    cosine: float = 0.0,
    facts: Anatomy = FACTS,
    cuts: Sequence[int] = (),
    spread: Any = np.nan,
    most: float = 1.0,
) -> list[Finding]:
    """What is found about parts: losses, gradients, weight, constant's loss."""
    columns: dict[Slot, Any] = {
        Slot("batch_example_std", "targets"): 2.0 * IDLE,
        Slot("batch_example_std", "predictions"): 2.0 * spread * IDLE,
        Slot("batch_integer_ratio", "targets"): IDLE,
        Slot("batch_max", "targets"): most * IDLE,
    }
    for path, (losses, gradients, weight, constant) in parts.items():
        columns[Slot("loss_component", path)] = losses
        if weight:
            columns[Slot("raw_loss_component", path)] = losses / weight
        columns[Slot("component_gradient_norm", path)] = gradients * IDLE
        columns[Slot("component_constant_loss", path)] = constant * IDLE
    for a in parts:
        for b in parts:
            if a < b:
                slot = Slot("component_gradient_cosine", f"{a}|{b}")
                columns[slot] = cosine * IDLE
    schema = Schema(tuple(columns))
    values = np.stack(list(columns.values()), 1).astype(np.float32)
    xray = np.isin(np.arange(STEPS), XRAYS)
    values[np.ix_(~xray, schema.xray)] = np.nan
    rule.begin(facts, schema)
    found: list[Finding] = []
    for steps in np.split(np.arange(STEPS), sorted(cuts)):
        block = Block(steps, steps.astype(float), values[steps], xray[steps])
        found += rule.check(block)
    return found


def _tasks(ratio: float, losses: Any, constant: float = np.nan) -> Any:
    return {
        "area_loss": (1e5 * FALLS, 1e3, 0, np.nan),
        "benign_loss": (losses, 1e3 / ratio, 0, constant),
    }


@settings(max_examples=10)
@given(st.sets(st.integers(0, STEPS)))
def test_a_task_that_outweighs_another(cuts: set[int]) -> None:
    """Told at step 100, however it is cut; names both."""
    parts = _tasks(1000, IDLE)
    (finding,) = _judge(DominantComponent(), parts, cuts=[*cuts])
    assert (finding.subject, finding.last_step) == ("area_loss", 100)
    assert finding.evidence["dominated"] == "benign_loss"
    assert finding.message.startswith(
        "`area_loss` dominates `benign_loss`: its gradient is 1e+03 times"
    )
    assert finding.causes == ("component_weight",)


@pytest.mark.parametrize(
    "parts",
    [
        _tasks(10, IDLE),
        _tasks(1000, FALLS),
        _tasks(1000, 0.2 * IDLE, 0.7),
        {"mse": (IDLE, 1e3, 0, np.nan), "m/hidden": (IDLE, 1.0, 0, np.nan)},
        {"mse": (IDLE, 1.0, 0, 1.0), "m/hidden": (IDLE, 0.001, 0, np.nan)},
        {
            "loss/fit": (IDLE, 1e3, 1.0, np.nan),
            "loss/sign": (IDLE, 1.0, 0.01, np.nan),
            "loss/unexplained": (0 * IDLE, 0.0, 0, np.nan),
        },
        {
            "loss/fit": (FALLS, 1.0, 1.0, np.nan),
            "loss/sign": (IDLE, 1e3, 1e3, np.nan),
        },
        {
            "loss/fit": (IDLE, 1.0, 1.0, np.nan),
            "loss/sign": (IDLE, 30.0, 100.0, np.nan),
        },
    ],
)
def test_parts_that_leave_room(parts: Any) -> None:
    """A loss outweighs a mild penalty, and a task may be learned already."""
    assert _judge(DominantComponent(), parts) == []


def test_a_term_with_a_huge_weight() -> None:
    """A penalty, a thousandfold; a resumed run may have learned before."""
    parts = {
        "loss": (1e3 * FALLS, 1e3, 0, np.nan),
        "loss/fit": (IDLE, 1.0, 1.0, np.nan),
        "loss/sign": (1e3 * FALLS, 1e3, 1e3, np.nan),
        "loss/unexplained": (0 * IDLE, 0.0, 0, np.nan),
    }
    (finding,) = _judge(DominantComponent(), parts)
    assert finding.subject == "loss/sign"
    resumed = Anatomy(layers=FACTS.layers, resumed_from="before")
    assert _judge(DominantComponent(), parts, facts=resumed) == []


@pytest.mark.parametrize(
    ("penalty", "cosine", "loss", "told"),
    [
        (np.geomspace(9, 0.01, STEPS), 0.0, IDLE, 1),
        (IDLE, -0.95, IDLE, 1),
        (IDLE, -0.95, FALLS, 0),
        (IDLE, 0.1, IDLE, 0),
    ],
)
def test_a_penalty_that_has_won(
    penalty: Any, cosine: float, loss: Any, told: int
) -> None:
    """Its loss is gone, or in balance, and nothing else was learned."""
    parts = {"mse": (loss, 0.2, 0, 1.0), "m/hidden": (penalty, 1, 0, np.nan)}
    found = _judge(DominantComponent(), parts, cosine)
    assert [f.subject for f in found] == ["m/hidden"] * told


@pytest.mark.parametrize(
    ("spread", "most", "first", "told"),
    [
        (0.15, 1.0, 9.0, 1),
        (0.15, 9.0, 9.0, 0),
        (0.15, 1.0, 1.0, 0),
        (0.5, 1.0, 9.0, 0),
        (np.where(np.arange(STEPS) < 150, 0.15, 0.5), 1.0, 9.0, 0),
        (np.nan, 1.0, 9.0, 0),
    ],
)
def test_a_prior_that_has_won(
    spread: Any, most: float, first: float, told: int
) -> None:
    """Predictions are the same for all, of a loss whose constant is unknown."""
    gone = np.geomspace(9, 0.01, STEPS)
    pull: Any = np.where(np.arange(STEPS) < 15, first, 0.2)
    parts = {
        "own": (IDLE, 1.0, 0, np.nan),
        "m/hidden": (gone, pull, 0, np.nan),
        "m/hidden/kl": (gone, pull, 50.0, np.nan),
    }
    found = _judge(DominantComponent(), parts, 1.0, spread=spread, most=most)
    assert [f.subject for f in found] == ["m/hidden/kl"] * told
    assert all("until it had fallen from" in f.message for f in found)


@pytest.mark.parametrize(
    ("weight", "spread", "fit", "gradient", "told"),
    [
        (100.0, 0.15, IDLE, 9.0, 1),
        (100.0, 0.5, IDLE, 9.0, 0),
        (100.0, 0.15, FALLS, 9.0, 0),
        (100.0, 0.15, IDLE, 1.0, 0),
        (2.0, 0.15, IDLE, 9.0, 0),
    ],
)
def test_a_heavy_term_that_makes_all_the_same(
    weight: float, spread: float, fit: Any, gradient: float, told: int
) -> None:
    """It falls, and predictions are constant; not so a heavy error."""
    parts = {
        "loss/fit": (fit, 1.0, 1.0, np.nan),
        "loss/spread": (0.9 * FALLS, gradient, weight, np.nan),
    }
    found = _judge(DominantComponent(), parts, spread=spread)
    assert [f.subject for f in found] == ["loss/spread"] * told
    plateau = parts | {"loss/spread": (IDLE, gradient, weight, np.nan)}
    assert _judge(DominantComponent(), plateau, spread=spread) == []


@pytest.mark.parametrize(
    ("weight", "cosine", "fit", "told"),
    [
        (100.0, -0.95, IDLE, 1),
        (100.0, -0.95, FALLS, 0),
        (100.0, -0.3, IDLE, 0),
        (2.0, -0.95, IDLE, 0),
    ],
)
def test_a_heavy_term_that_holds_the_balance(
    weight: float, cosine: float, fit: Any, told: int
) -> None:
    """Both gradients are of a size, and only one term got its way."""
    parts = {
        "loss/fit": (fit, 1.0, 1.0, np.nan),
        "loss/spread": (0.01 * IDLE, 1.0, weight, np.nan),
    }
    found = _judge(DominantComponent(), parts, cosine)
    assert [f.subject for f in found] == ["loss/spread"] * told
    assert all("its gradient undoes the other one" in f.message for f in found)


@pytest.mark.parametrize(
    ("cosine", "losses", "gradient", "told"),
    [
        (-0.99, IDLE, 1.0, 1),
        (-0.99, FALLS, 1.0, 0),
        (-0.5, IDLE, 1.0, 0),
        (-0.99, IDLE, 9.0, 0),
        (0.9, IDLE, 1.0, 0),
    ],
)
def test_terms_against_each_other(
    cosine: float, losses: Any, gradient: float, told: int
) -> None:
    """Info, for terms of a size that gain nothing."""
    parts = {
        "loss/agree": (IDLE, gradient, 0, np.nan),
        "loss/fit": (losses, 1.0, 0, np.nan),
    }
    found = _judge(ConflictingComponents(), parts, cosine)
    assert [f.subject for f in found] == ["loss/agree|loss/fit"] * told
    assert all(f.severity == "info" for f in found)


def test_another_schema() -> None:
    """Parts that come and go are looked at anew."""
    rule = DominantComponent()
    assert _judge(rule, _tasks(10, IDLE)) == []
    parts = {"a_loss": (IDLE, 1.0, 0, np.nan), "b_loss": (IDLE, 1.0, 0, 1.0)}
    assert _judge(rule, parts) == []
