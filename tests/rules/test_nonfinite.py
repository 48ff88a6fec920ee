"""NaN and Inf: the exact step, the right name, one finding a fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Block, Finding, Schema
from gradwatch.rules.nonfinite import (
    NonfiniteBatch,
    NonfiniteGradient,
    NonfiniteLoss,
    NonfiniteWeight,
)
from gradwatch.signals import Slot

SCHEMA = Schema(
    (
        Slot("loss"),
        Slot("gradient_norm"),
        Slot("nonfinite"),
        Slot("nonfinite_batch"),
        Slot("nonfinite_target"),
        Slot("nonfinite_weight"),
        Slot("update_dropped"),
        Slot("variable_gradient_norm", "a/kernel"),
        Slot("variable_gradient_norm", "b/kernel"),
        Slot("variable_nonfinite", "norm/mean"),
    )
)
HEALTHY = (1.0, 1.0, 0, 0, 0, 0, 0, 0.7, 0.7, 0)
LOSS = (np.nan, np.nan, 1, 0, 0, 0, 1, np.nan, np.nan, 0)
GRADIENT = (0.5, np.nan, 1, 0, 0, 0, 1, 0.7, np.nan, 0)
WEIGHT = (0.5, 1.0, 1, 0, 0, 0, 1, 0.7, 0.7, 1)
LOST = (np.nan, np.nan, 1, 0, 0, 1, 1, np.nan, np.nan, 0)
HUGE = (0.5, 1e25, 1, 0, 0, 0, 1, 0.7, 1e25, 0)
BATCH = (np.nan, np.nan, 1, 1, 0, 0, 1, np.nan, np.nan, 1)
TARGET = (np.nan, np.nan, 1, 1, 1, 0, 1, np.nan, np.nan, 0)


def _judge(rows: list[Any], cuts: list[int]) -> list[Finding]:
    """All findings of the rules on rows that come in Blocks cut at `cuts`."""
    values = np.array(rows, np.float32).reshape(-1, len(SCHEMA.slots))
    steps = np.arange(len(values))
    kinds = (NonfiniteBatch, NonfiniteLoss, NonfiniteGradient, NonfiniteWeight)
    rules = [kind() for kind in kinds]
    for rule in rules:
        rule.begin(Anatomy(), SCHEMA)
    found: list[Finding] = []
    for part in np.split(steps, sorted(c for c in cuts if c < len(steps))):
        block = Block(
            part,
            part.astype(float),
            values[part],
            np.zeros(len(part), np.bool_),
        )
        for rule in rules:
            found += rule.check(block)
    return sorted(found, key=lambda f: (f.first_step, f.rule))


@pytest.mark.parametrize(
    ("row", "rule", "subject"),
    [
        (LOSS, "nonfinite_loss", "loss"),
        (BATCH, "nonfinite_batch", "inputs"),
        (TARGET, "nonfinite_batch", "targets"),
        (GRADIENT, "nonfinite_gradient", "b/kernel"),
        (WEIGHT, "nonfinite_weight", "norm/mean"),
        (LOST, "nonfinite_weight", "weights"),
        (HUGE, "nonfinite_gradient", "b/kernel"),
    ],
)
def test_the_first_in_the_chain_is_named(
    row: Any, rule: str, subject: str
) -> None:
    """Each kind of bad step makes the one finding that fits it."""
    (finding,) = _judge([HEALTHY] * 9 + [row], [])
    assert (finding.rule, finding.subject) == (rule, subject)
    assert finding.first_step == 9
    assert finding.severity == "critical"
    causes = {
        id(BATCH): ("data",),
        id(TARGET): ("data",),
        id(HUGE): ("overflow",),
    }
    assert finding.causes == causes.get(id(row), ())
    assert ("weights are lost" in finding.message) == (row is LOST)


def test_healthy_steps_are_silent() -> None:
    """Large, small and zero values are no findings."""
    rows = [
        HEALTHY,
        (1e30, 1e25, 0, 0, 0, 0, 0, 1e25, 0, 0),
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    ]
    assert _judge(rows * 50, []) == []


def test_later_symptoms_are_the_same_fault() -> None:
    """NaN gradients, then NaN losses to the end of the run: one finding."""
    (finding,) = _judge([HEALTHY] * 5 + [GRADIENT] + [LOSS] * 500, [])
    assert (finding.rule, finding.first_step) == ("nonfinite_gradient", 5)


def test_a_new_fault_after_a_quiet_time_is_new() -> None:
    """Sixty-three finite steps do not end an incident, sixty-four do."""
    for quiet, incidents in ((63, 1), (64, 2)):
        rows = [GRADIENT] + [HEALTHY] * quiet + [LOSS]
        assert len(_judge(rows, [])) == incidents


@given(
    rows=st.lists(
        st.sampled_from([HEALTHY] * 6 + [LOSS, GRADIENT, WEIGHT, BATCH]),
        max_size=200,
    ),
    spread=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 6000), max_size=12),
)
def test_findings_do_not_depend_on_cuts(
    rows: list[Any], spread: int, cuts: list[int]
) -> None:
    """However readings are cut into Blocks, the findings are the same."""
    long = [r for row in rows for r in [row, *[HEALTHY] * (spread - 1)]]
    assert repr(_judge(long, cuts)) == repr(_judge(long, []))


def test_the_message_tells_what_became_of_the_weights() -> None:
    """Whether the update was applied or dropped is said in words."""
    dropped = _judge([GRADIENT], [])[0].message
    lost = _judge([(0.5, np.nan, 1, 0, 0, 0, 0, np.nan, np.nan, 0)], [])[
        0
    ].message
    assert "those before it" in dropped
    assert "the weights are lost" in lost
    assert "all 2 variables" in lost
