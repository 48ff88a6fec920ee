"""Losses below zero: likelihoods, and what nothing bounds."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.records import Anatomy
from gradwatch.rules.negative import NegativeLoss
from gradwatch.rules.trends import gathers_pace
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

LOSS = Slot("loss")


@pytest.mark.parametrize("pace", ["exponential", "quadratic"])
def test_a_loss_that_falls_ever_faster(pace: str) -> None:
    """A minus in front of an error, a likelihood that is minimised."""
    steps = np.arange(200)
    falls = {"exponential": 1.3**steps, "quadratic": 1 + (steps / 40) ** 2}
    (finding,) = judged(NegativeLoss(), {LOSS: -falls[pace]})
    assert finding.evidence["loss_now"] < 0
    assert finding.causes == ("wrong_sign",)


def test_a_cosine_that_begins_at_nothing() -> None:
    """Measured: its first value, 0.0004, is no measure of what ends at -1."""
    loss = [0.0004, -0.01, 0.002, -0.018, 0.018, 0.011, -0.043, -0.013, -0.016]
    loss += [-0.021, -0.038, -0.036, -0.049, -0.065, -0.067, -0.082, -0.094]
    loss += [-0.104, -0.121, -0.117, -0.153, -0.115, -0.15, -0.146, -0.124]
    assert judged(NegativeLoss(), {LOSS: np.array(loss)}) == []


def test_likelihoods_below_zero_are_healthy() -> None:
    """They fall ever more slowly, or at an even pace, from any height."""
    steps = np.arange(400)
    noise = 0.05 * np.random.default_rng(1).normal(size=400)
    slower = 1 - 5 * (1 - np.exp(-steps / 60))
    even = 0.1 - 0.02 * steps
    flow = 900 - 3000 * (1 - np.exp(-steps / 80))
    for loss in (slower, even, flow):
        assert judged(NegativeLoss(), {LOSS: loss + noise}) == []


def test_a_loss_that_gathers_pace_all_along() -> None:
    """By quarters of the run, where noise hides it from one step to the next.

    Told once half of the plan is over.
    """
    steps = np.arange(200)
    noise = np.random.default_rng(2).normal(size=200)
    loss = -1.2 - 3e-4 * steps**2 + 0.7 * noise
    (finding,) = judged(NegativeLoss(), {LOSS: loss}, (), _plan(200))
    assert 127 <= finding.last_step < 160
    assert judged(NegativeLoss(), {LOSS: loss}, (), _plan(2000)) == []
    assert judged(NegativeLoss(), {LOSS: loss + 9}, (), _plan(200)) == []


def test_noise_gathers_no_pace() -> None:
    """A likelihood that falls evenly, or only scatters: 1 % of runs."""
    told = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=16)
        told += gathers_pace(-1.0 - 0.5 * np.arange(16) + noise)
        told += gathers_pace(noise)
    assert told <= 4


def _plan(steps: int) -> Anatomy:
    return Anatomy(planned_steps=steps)
