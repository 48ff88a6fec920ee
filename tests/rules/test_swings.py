"""Losses that swing because of the rate, and those that swing anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Finding, Variable
from gradwatch.rules.swings import OscillatingLoss
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

N = 400
STEPS = np.arange(N)
XRAYS = (10, 20, 50, 100, 200, 300)
KERNEL = Variable("a/kernel", (16, 4), "float32", True, 0.25)


def _random(seed: int = 0) -> Any:
    return np.random.default_rng(seed)


def _told(
    loss: Any,
    work: Any = 0.01,
    ratio: Any = 0.01,
    optimizer: Any = None,
    unit: float = 1.0,
    cuts: Any = (),
) -> list[Finding]:
    """What is said of a loss, of `work` done, and of steps of `ratio`."""
    gradient = np.sqrt(np.broadcast_to(work, N) * unit / 0.1)
    columns = {
        Slot("loss"): unit * np.broadcast_to(loss, N),
        Slot("gradient_norm"): gradient,
        Slot("learning_rate"): 0.1,
        Slot("update_applied"): 1.0,
        Slot("variable_weight_norm", "a/kernel"): 2.0,
        Slot("variable_update_norm", "a/kernel"): np.multiply(2.0, ratio),
    }
    sgd = {"class_name": "SGD", "momentum": 0.0}
    facts = Anatomy(
        planned_steps=N, variables=(KERNEL,), optimizer=optimizer or sgd
    )
    return judged(OscillatingLoss(), columns, XRAYS, facts, cuts)


def _descent(
    slope: Any, loss: Any, rate: float, start: float = 1.5
) -> list[Finding]:
    """Plain gradient descent on a function of one number."""
    x, losses, works = start, [], []
    for _ in range(N):
        losses.append(float(loss(x)))
        works.append(rate * float(slope(x)) ** 2)
        x -= rate * float(slope(x))
    return _told(np.array(losses), np.array(works))


def _saturating(x: Any) -> Any:
    """A valley with walls that get flat: log cosh."""
    return np.log(np.cosh(x)) + 0.01


@pytest.mark.parametrize(("rate", "start"), [(2.2, 0.6), (3, 1), (5, 2)])
def test_descent_beyond_two_over_the_curvature(
    rate: float, start: float
) -> None:
    """Bounded, as the slope is: it jumps over the valley for ever."""
    (finding,) = _descent(np.tanh, _saturating, rate, start)
    assert (finding.severity, finding.last_step) == ("warning", 255)
    assert finding.causes == ("learning_rate_high",)
    assert finding.evidence["share_due_to_rate"] > 0.25
    assert "learning rate of 0.1 holds it up" in finding.message


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.9])
def test_descent_below_it(rate: float) -> None:
    """It arrives, also where each step overshoots."""
    assert _descent(np.tanh, _saturating, rate) == []


def test_absolute_errors() -> None:
    """Half of W is due to the rate where slopes are straight: it stalls."""
    assert len(_descent(np.sign, np.abs, 2.3)) == 1
    assert _descent(np.sign, lambda x: abs(x) + 0.2, 0.05) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_batches(seed: int) -> None:
    """White noise around a level, falling or converged, is no swing."""
    noise = _random(seed).lognormal(0, 0.4, N)
    for level in (1.0, 0.9 + 0.5 * np.exp(-STEPS / 50), np.exp(-STEPS / 100)):
        assert _told(level * noise, 0.1 * noise) == []


@pytest.mark.parametrize("period", [2, 3, 7, 50])
def test_data_in_the_same_order(period: int) -> None:
    """A loss with a period, at a plateau that has not ended yet."""
    hard = 1 + 0.9 * np.sin(2 * np.pi * (STEPS % period + 0.25) / period)
    assert _told(hard, 0.2 * hard) == []
    assert _told(0.2 + hard * np.exp(-STEPS / 60), 0.2 * hard) == []


def test_bold_rates_that_learn() -> None:
    """W is large at first, or always, but the loss falls, or W does."""
    falls = np.exp(-STEPS / 150) * _random().lognormal(0, 0.1, N)
    assert _told(falls, 2 * falls) == []
    edge = falls * (1 + 0.5 * (-1.0) ** STEPS)
    assert _told(edge, 2 * edge) == []
    level = _random().lognormal(0, 0.1, N)
    assert _told(level, 3 * np.exp(-STEPS / 100)) == []
    learned = np.where(STEPS < 50, 4, 1) * level
    assert _told(learned, 2 * level) == []


def test_a_warm_up() -> None:
    """The rate grows, W does, and the loss falls."""
    assert _told(np.exp(-((STEPS / 250) ** 2)), (STEPS / 250) ** 2) == []


def test_momentum_carries_farther() -> None:
    """A tenth of the work is enough with 0.9; less so if steps are no noise."""
    level = _random().lognormal(0, 0.1, N)
    with_momentum = {"class_name": "SGD", "momentum": 0.9}
    assert len(_told(level, 0.2, optimizer=with_momentum)) == 1
    assert _told(level, 0.2) == []
    assert _told(level, 0.6, optimizer=with_momentum) == []
    assert len(_told(level, 6.0, optimizer=with_momentum)) == 1
    collects = {**with_momentum, "gradient_accumulation_steps": 4}
    assert _told(level, 0.2, optimizer=collects) == []


def test_a_limit_cycle_of_an_adaptive_optimizer() -> None:
    """Its work is not known; that kernels are replaced is."""
    adam = {"class_name": "Adam"}
    cycle = 1 + 0.6 * np.sin(STEPS / 9) * _random().lognormal(0, 0.1, N)
    (finding,) = _told(cycle, 5.0, 0.15, adam)
    assert finding.subject == "a/kernel"
    assert "moves a/kernel by 0.15 of its norm" in finding.message
    assert _told(cycle, 5.0, 0.03, adam) == []
    once = np.where(STEPS == 200, 0.9, 0.005)
    assert _told(cycle, 5.0, once, adam) == []
    assert _told(np.exp(-STEPS / 100) * cycle, 5.0, 0.15, adam) == []


def test_losses_that_may_be_negative() -> None:
    """Where 0 lies says nothing about them."""
    level = _random().normal(0.05, 0.2, N)
    assert _told(level, 1.0) == []


def test_a_kernel_at_zero() -> None:
    """What has no norm has no ratio."""
    columns = {
        Slot("loss"): 1.0,
        Slot("gradient_norm"): 1.0,
        Slot("learning_rate"): 0.1,
        Slot("update_applied"): 1.0,
        Slot("variable_weight_norm", "a/kernel"): 0.0,
        Slot("variable_update_norm", "a/kernel"): np.ones(N),
    }
    facts = Anatomy(variables=(KERNEL,), optimizer={"class_name": "Adam"})
    assert judged(OscillatingLoss(), columns, XRAYS, facts) == []


@settings(max_examples=25, deadline=None)
@given(
    unit=st.sampled_from([1e-6, 1e-3, 1.0, 1e6]),
    cuts=st.lists(st.integers(1, N - 1), max_size=9),
)
def test_units_and_cuts_do_not_matter(unit: float, cuts: Any) -> None:
    """The same step, and evidence in the loss's unit."""
    level = _random().lognormal(0, 0.3, N)
    (whole,) = _told(level, 1.5 * level)
    (finding,) = _told(level, 1.5 * level, unit=unit, cuts=cuts)
    assert finding.last_step == whole.last_step
    for name in ("loss_now", "loss_low", "share_due_to_rate"):
        factor = 1.0 if name.startswith("share") else unit
        expected = factor * whole.evidence[name]
        assert finding.evidence[name] == pytest.approx(expected, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=9))
def test_cycles_do_not_depend_on_cuts(cuts: Any) -> None:
    """Nor does the kernel that is named."""
    adam = {"class_name": "Adam"}
    level = _random().lognormal(0, 0.3, N)
    whole = _told(level, 5.0, 0.15, adam)
    assert len(whole) == 1
    assert _told(level, 5.0, 0.15, adam, cuts=cuts) == whole


def test_long_runs_keep_little() -> None:
    """Of 20,000 steps as much as of 1,000."""
    n = 20_000
    level = _random().lognormal(0, 0.1, n)
    columns = {
        Slot("loss"): 0.1 * level,
        Slot("gradient_norm"): 0.1 * level,
        Slot("learning_rate"): 0.1,
    }
    facts = Anatomy(optimizer={"class_name": "SGD"})
    rule = OscillatingLoss()
    assert judged(rule, columns, (), facts) == []
    assert len(rule._swings) <= 64


def test_an_infinite_gradient_at_a_rate_of_0() -> None:
    """Such a step does no work that could be counted; no warning is given."""
    work = np.where(STEPS == 300, np.inf, 4.0)
    columns = {
        Slot("loss"): 1.0,
        Slot("gradient_norm"): np.sqrt(work),
        Slot("learning_rate"): np.where(STEPS == 300, 0.0, 0.1),
        Slot("update_applied"): 1.0,
    }
    facts = Anatomy(planned_steps=N, optimizer={"class_name": "SGD"})
    assert judged(OscillatingLoss(), columns, (), facts, ()) == []
