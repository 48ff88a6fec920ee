"""What is left to learn, and what counts as the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.rules.evidence import owner
from gradwatch.rules.headroom import Headroom, Xray
from tests.rules.made import learning, run, weights


def _xrays(columns: Any, cuts: Any = ()) -> list[Xray]:
    schema, block = run(columns)
    headroom = Headroom()
    headroom.begin(schema)
    parts = np.split(np.arange(300), sorted(cuts))
    return [
        xray
        for part in parts
        for xray in headroom.xrays(block.rows(np.isin(block.steps, part)))
    ]


def _left(columns: Any, cuts: Any = ()) -> dict[int, float]:
    return {xray.step: xray.left for xray in _xrays(columns, cuts)}


def test_of_a_known_loss() -> None:
    """As good as a constant, half way, as good as can be."""
    for loss, left in ((2.3, 1.0), (1.15, 0.5), (0.0, 0.0)):
        found = _left(learning(loss))
        assert list(found) == [10, 20, 50, 100, 200]
        assert found[10] == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize(
    "unknown",
    [
        {("component_constant_loss", "compile_loss"): math.nan},
        {("examples", ""): 4.0},
        {("batch_mean", "sample_weights"): 1.0},
    ],
)
def test_of_an_unknown_loss(unknown: Any) -> None:
    """By the first losses, as soon as there are enough."""
    steps = np.arange(300)
    found = _left({**learning(np.where(steps < 30, 4.0, 1.0)), **unknown})
    assert math.isnan(found[10])
    assert (found[20], found[50]) == (1.0, 0.25)


def test_while_the_rate_is_zero() -> None:
    """Nothing can have been learned yet."""
    rate = np.where(np.arange(300) < 50, 0.0, 0.1)
    found = _left({**learning(), ("learning_rate", ""): rate})
    assert math.isnan(found[20])
    assert found[50] == 1.0


def test_of_targets_that_are_all_the_same() -> None:
    """Nothing can be learned: unknown."""
    assert math.isnan(_left(learning(1.0, constant=0.0))[50])


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_it_does_not_depend_on_blocks(cuts: set[int]) -> None:
    """Nor do first losses that are not finite count."""
    losses = np.random.default_rng(0).lognormal(size=300)
    losses[[0, 3]] = np.nan
    columns = learning(losses)
    columns.pop(("component_constant_loss", "compile_loss"))
    columns |= weights("a/kernel")
    whole = _left(columns)
    assert np.isfinite(whole[20])
    np.testing.assert_equal(_left(columns, cuts), whole)


def test_it_may_be_shared() -> None:
    """Asked again about a record, it says the same and counts it once."""
    schema, block = run(learning())
    headroom = Headroom()
    for _ in range(2):
        headroom.begin(schema)
    assert headroom.xrays(block) is headroom.xrays(block)


def test_entries_without_gradient_do_not_count() -> None:
    """One row in a hundred of an embedding was asked for."""
    values = {"zero_gradient_ratio": 0.99, "update_norm": 0.1}
    xray = _xrays({**learning(), **weights("a/kernel", **values)})[0]
    assert xray.moved("a/kernel") == pytest.approx(1.0)
    assert xray.effective("a/kernel", 100) == pytest.approx(0.1)
    assert math.isnan(xray.moved("b/kernel"))


def test_weights_of_zero() -> None:
    """They move without bound, or not at all."""
    for moved, ratio in ((1.0, math.inf), (0.0, 0.0)):
        values = {"weight_norm": 0.0, "update_norm": moved}
        xray = _xrays({**learning(), **weights("a/kernel", **values)})[0]
        assert xray.moved("a/kernel") == ratio


def test_inputs_that_say_nothing() -> None:
    """All of them must be the same for all examples; unknown is not blind."""
    for deviations, result in (
        ((0.0, 0.0), True),
        ((0.0, 1.0), False),
        ((math.nan, math.nan), False),
    ):
        columns = {
            ("batch_example_std", f"inputs/{i}"): deviation
            for i, deviation in enumerate(deviations)
        }
        columns |= {("batch_example_std", "targets"): 1.0, ("loss", ""): 1.0}
        assert _xrays(columns)[0].blind == result


@pytest.mark.parametrize(
    ("deviation", "result"), [(0.1, True), (0.001, False), (math.nan, False)]
)
def test_predictions_that_depend_on_inputs(
    deviation: float, result: bool
) -> None:
    """By more than 1 % of their rms; unknown is no."""
    columns = {
        ("batch_mean", "predictions"): 0.3,
        ("batch_std", "predictions"): 0.4,
        ("batch_example_std", "predictions"): deviation,
        ("batch_example_std", "inputs"): 1.0,
        ("loss", ""): 1.0,
    }
    assert _xrays(columns)[0].answers == result


def test_owner() -> None:
    """The layer of a variable."""
    assert owner("model/dense/kernel") == "model/dense"
