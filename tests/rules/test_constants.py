"""Constant targets: synthetic losses, with and without rare other ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Block, Epoch, Finding, Schema, Variable
from gradwatch.rules.constants import ConstantTarget
from gradwatch.signals import Slot
from tests.rules.fields import anatomy, statistics

STEPS, EPOCH, BATCH = 300, 60, 32
XRAYS = (10, 20, 50, 100, 200)


def _judge(
    losses: Any,
    targets: Any,
    facts: Anatomy | None = None,
    cuts: Sequence[int] = (),
) -> list[Finding]:
    """What is found in a run of epochs of 60 steps of 32 examples."""
    facts = facts or anatomy("binary_crossentropy")
    name = str(facts.loss)
    slots = [Slot("loss"), Slot("examples"), Slot("loss_component", name)]
    names = list(statistics(targets))
    slots += [Slot(n, f) for f in ("targets", "predictions") for n in names]
    values = np.full((STEPS, len(slots)), np.nan)
    values[:, 0] = values[:, 2] = losses
    values[:, 1] = BATCH
    xray = np.isin(np.arange(STEPS), XRAYS)
    seen = [*statistics(targets).values(), *[0.5] * len(names)]
    values[np.ix_(xray, np.arange(3, len(slots)))] = seen
    values = values.astype(np.float32)
    rule = ConstantTarget()
    rule.begin(facts, Schema(tuple(slots)))
    found: list[Finding] = []
    ends = range(EPOCH, STEPS + 1, EPOCH)
    places = sorted({0, STEPS, *ends, *cuts})
    for first, last in pairwise(places):
        steps = np.arange(first, last)
        block = Block(steps, steps.astype(float), values[steps], xray[steps])
        found += rule.check(block)
        if last in ends:
            metrics = {"loss": float(losses[last - 1])}
            epoch = Epoch(last // EPOCH - 1, last, 0.0, metrics, {})
            found += rule.check(epoch)
    return found


def _falling(odd: Any = 0.0, seed: int = 0, least: float = 0.0) -> Any:
    """A loss that falls with the steps; `odd` examples in each batch."""
    noise = np.random.default_rng(seed).lognormal(0, 0.15, STEPS)
    p = np.maximum(0.5 / (1 + 0.05 * np.arange(STEPS) ** 1.5), least)
    return (-np.log1p(-p) - odd * np.log(p) / BATCH) * noise


@settings(max_examples=10)
@given(st.sets(st.integers(0, STEPS)), st.integers(0, 99))
def test_all_targets_are_the_same(cuts: set[int], seed: int) -> None:
    """Told at the end of an epoch after three X-rays, however it is cut."""
    (finding,) = _judge(_falling(0, seed), np.zeros((BATCH, 1)), cuts=[*cuts])
    assert finding.subject == "targets"
    assert finding.last_step % EPOCH == EPOCH - 1
    assert 50 < finding.last_step < 240
    assert finding.causes == ("data",)


def test_all_rows_are_the_same() -> None:
    """One-hot rows hold two values, and may all be of one class."""
    rows = np.eye(3)[np.zeros(BATCH, int)]
    facts = anatomy("categorical_crossentropy", "softmax", 3)
    assert len(_judge(_falling(), rows, facts)) == 1
    assert _judge(_falling(), np.eye(3)[np.arange(BATCH) % 3], facts) == []


@pytest.mark.parametrize("least", [0.0, 0.4 / BATCH, 0.8 / BATCH])
@pytest.mark.parametrize("share", [0.02, 0.01, 0.003])
def test_rare_other_targets(share: float, least: float) -> None:
    """X-rays may miss them all; the losses of their batches do not."""
    for seed in range(8):
        odd = np.random.default_rng(seed).binomial(BATCH, share, STEPS)
        losses = _falling(odd, seed, least)
        assert _judge(losses, np.zeros((BATCH, 1))) == []


def test_a_loss_that_is_nearly_nothing() -> None:
    """Where all is known, what scatters by decades is rounding."""
    nothing = 10.0 ** np.random.default_rng(0).uniform(-25, -20, STEPS)
    losses = np.where(np.arange(STEPS) < 12, _falling(), nothing)
    assert len(_judge(losses, np.zeros((BATCH, 1)))) == 1


def test_a_loss_that_falls_slowly() -> None:
    """Below an example's share one unlike the others would show."""
    assert len(_judge(_falling(0, 0, 0.4 / BATCH), np.zeros((BATCH, 1)))) == 1
    assert _judge(_falling(0, 0, 1.4 / BATCH), np.zeros((BATCH, 1))) == []


@pytest.mark.parametrize(
    "facts",
    [
        anatomy("my_loss"),
        anatomy(None),
        replace(
            anatomy("binary_crossentropy"),
            variables=(Variable("critic/kernel", (2, 2), "float32", False, 1),),
        ),
        replace(anatomy("mse"), layers=()),
    ],
)
def test_a_constant_target_that_is_meant(facts: Anatomy) -> None:
    """Losses of one's own, frozen critics, outputs that are residuals."""
    assert _judge(_falling(), np.ones((BATCH, 1)), facts) == []


def test_a_loss_that_does_not_fall() -> None:
    """As long as a rare example would not show, nothing is said."""
    assert _judge(np.full(STEPS, 0.6), np.zeros((BATCH, 1))) == []


def test_distances() -> None:
    """By squares, once 99 % of the loss is gone."""
    assert len(_judge(_falling(), np.ones((BATCH, 1)), anatomy("mse"))) == 1
