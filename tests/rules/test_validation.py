"""Validation that turns, or only creeps or scatters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Block, Epoch, Finding, Schema
from gradwatch.rules.validation import Overfitting
from gradwatch.signals import Slot

EPOCHS = np.arange(25)
FALLS = 0.1 + np.exp(-EPOCHS / 6)
TURNS = 0.6 + 0.5 * np.exp(-EPOCHS / 2) + 0.02 * EPOCHS


def _judge(training: Any, validation: Any) -> list[Finding]:
    rule = Overfitting()
    rule.begin(Anatomy(), Schema())
    found: list[Finding] = []
    for epoch, losses in enumerate(zip(training, validation)):
        train, rest = ({"loss": float(loss)} for loss in losses)
        found += rule.check(Epoch(epoch, 10 * epoch + 10, 0.0, train, rest))
    return found


def test_validation_that_turns() -> None:
    """Told once, with the best epoch."""
    (finding,) = _judge(FALLS, TURNS)
    best = int(TURNS.argmin())
    assert finding.evidence["best_epoch"] == best
    assert finding.first_step == 10 * best + 10
    assert finding.subject == "validation"


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (FALLS, FALLS + 0.05),
        (FALLS, np.maximum(FALLS, 0.4)),
        (FALLS, 0.4 + np.exp(-EPOCHS / 3) + 0.002 * EPOCHS),
        (1.5 + FALLS, TURNS),
        (0.3 + 0 * FALLS, TURNS),
        (FALLS, np.nan * TURNS),
        (FALLS[:6], TURNS[:6]),
    ],
)
def test_validation_that_is_fine(training: Any, validation: Any) -> None:
    """Follows, levels off, creeps, is below a training with dropout."""
    assert _judge(training, validation) == []


def _by_heart(training: Any, validation: Any, constant: float) -> list[Finding]:
    """What is said with X-rays that know the best constant answer's loss."""
    part = "sparse_categorical_crossentropy"
    values = {
        Slot("loss"): 2.3,
        Slot("loss_component", part): 2.3,
        Slot("examples"): 512.0,
        Slot("component_constant_loss", part): constant,
        Slot("component_lowest_loss", part): 0.0,
    }
    steps = np.arange(3)
    rows = np.tile(np.array([*values.values()], np.float32), (3, 1))
    rule = Overfitting()
    rule.begin(Anatomy(), Schema(tuple(values)))
    block = Block(steps, steps.astype(float), rows, steps >= 0)
    found = list(rule.check(block))
    for epoch, (a, b) in enumerate(zip(training, validation)):
        record = Epoch(epoch, 9 * epoch + 9, 0.0, {"loss": a}, {"loss": b})
        found += rule.check(record)
    return found


def test_labels_that_say_nothing_are_learned_by_heart() -> None:
    """Validation creeps up, and was never better than a constant answer."""
    training, creeps = 2.3 - 0.01 * EPOCHS, 2.31 + 0.005 * EPOCHS
    (finding,) = _by_heart(training, creeps, 2.3)
    assert finding.subject == "validation"
    assert _by_heart(training, creeps, 2.4) == []
    assert _by_heart(2.3 - 0.002 * EPOCHS, creeps, 2.3) == []
    assert _by_heart(training, 2.31 + 0 * EPOCHS, 2.3) == []
    held = 2.31 + 0.005 * EPOCHS + 0.5 * np.exp(-EPOCHS / 2)
    assert _by_heart(training, held, 2.3) == []


@given(st.integers(0, 9999), st.floats(0.0, 0.15))
def test_noise(seed: int, size: float) -> None:
    """A level that scatters by 15 % has not turned."""
    noise = np.random.default_rng(seed).normal(0, size, 25)
    validation = np.maximum(FALLS, 0.5) * np.exp(noise)
    assert _judge(FALLS, validation) == []


def test_a_second_fit_begins_anew() -> None:
    """Epochs that start over are another fit."""
    half = [FALLS[:5], TURNS[:5] * 0.1]
    rule = Overfitting()
    for _ in range(4):
        for epoch, (a, b) in enumerate(zip(*half)):
            record = Epoch(epoch, epoch, 0.0, {"loss": a}, {"loss": b})
            assert list(rule.check(record)) == []
