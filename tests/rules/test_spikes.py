"""Spikes: single steps far outside, repeated or without return."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.rules.spikes import GradientSpike, LossSpike
from gradwatch.signals import Slot
from tests.rules.synthetic import judged

LOSS, NORM = Slot("loss"), Slot("gradient_norm")
STEPS = np.arange(320)


def _noise() -> Any:
    return np.random.default_rng(0).lognormal(0, 0.3, len(STEPS))


def test_one_spike_is_worth_knowing_three_are_a_warning() -> None:
    """The steps and the norms are told."""
    norm = _noise()
    norm[40] = 500
    (finding,) = judged(GradientSpike(), {NORM: norm})
    assert (finding.severity, finding.first_step) == ("info", 40)
    norm[[120, 200]] = 900
    found = judged(GradientSpike(), {NORM: norm})
    assert [f.severity for f in found] == ["info", "warning"]
    assert set(found[1].evidence["spikes"]) == {40, 120, 200}
    assert "900 at step 200" in found[1].message


def test_what_is_usual_is_what_a_spike_was_judged_by() -> None:
    """Not the median of its own window, which may be all spikes."""
    norm = _noise()
    before = max(float(np.median(norm[i : i + 16])) for i in range(0, 64, 16))
    norm[64:80] = 500
    (finding,) = judged(GradientSpike(), {NORM: norm})
    usual = finding.evidence["usual_norm"]
    assert before <= usual <= 1.5 * before
    assert f"usually {usual:.3g} at most" in finding.message


def test_hard_examples_of_a_net_that_knows_all_are_no_spikes() -> None:
    """They stand out of what is usual now, not of what was at the start."""
    norm = _noise() * np.exp(-STEPS / 30)
    norm[200::40] = 3.0
    assert judged(GradientSpike(), {NORM: norm}) == []


def test_a_loss_that_does_not_return() -> None:
    """The levels before and after are told; one that returns is silent."""
    loss = 2 + 0.1 * _noise()
    norm = _noise()
    loss[100], norm[100] = 400.0, 1e4
    assert judged(LossSpike(), {LOSS: loss, NORM: norm}) == []
    loss[101:] += 0.3
    (finding,) = judged(LossSpike(), {LOSS: loss, NORM: norm})
    assert finding.first_step == 100
    evidence = finding.evidence
    assert 0.2 < evidence["loss_after"] - evidence["loss_before"] < 0.4


def test_a_level_that_shifts_without_a_spike() -> None:
    """A restart of a schedule, a harder part of the data: not this rule's."""
    loss = np.where(STEPS < 160, 1.0, 2.0) * (1 + 0.01 * _noise())
    assert judged(LossSpike(), {LOSS: loss, NORM: _noise()}) == []


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 319), max_size=9))
def test_spikes_do_not_depend_on_cuts(cuts: Any) -> None:
    """Nor does what is said of them."""
    loss, norm = _noise(), _noise()
    norm[[50, 90, 130]] = 1e3
    loss[90:] += 5
    columns = {LOSS: loss, NORM: norm}
    for kind in (GradientSpike, LossSpike):
        whole = judged(kind(), columns)
        assert whole
        assert judged(kind(), columns, cuts=cuts) == whole
