"""What is left to learn, and what counts as the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.rules.evidence import (
    Headroom,
    answers,
    blind,
    effective,
    owner,
    step_ratio,
)
from gradwatch.rules.rows import Columns, xrays
from gradwatch.rules.windows import Windows
from tests.rules.made import learning, run, weights


def _left(columns: Any, cuts: Any = ()) -> dict[int, float]:
    schema, block = run(columns)
    headroom = Headroom()
    headroom.begin(schema)
    parts = np.split(np.arange(300), sorted(cuts))
    return {
        row.step: left
        for part in parts
        for row, left in headroom.xrays(block.rows(np.isin(block.steps, part)))
    }


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
    """Windows say the same, too."""
    columns = learning(np.random.default_rng(0).lognormal(size=300))
    columns.pop(("component_constant_loss", "compile_loss"))
    columns |= weights("a/kernel")
    whole = _left(columns)
    np.testing.assert_equal(_left(columns, cuts), whole)
    schema, block = run(columns)
    headroom, windows = Headroom(), Windows(300)
    headroom.begin(schema)
    windows.begin(range(len(schema.slots)))
    (window,) = windows.cut(block)
    found = {row.step: left for row, left in headroom.xrays(window)}
    np.testing.assert_equal(found, whole)


def test_entries_without_gradient_do_not_count() -> None:
    """One row in a hundred of an embedding was asked for."""
    values = {"zero_gradient_ratio": 0.99, "update_norm": 0.1}
    schema, block = run(weights("a/kernel", **values))
    row = next(xrays(block))
    columns = Columns(schema)
    assert step_ratio(columns, row, "a/kernel") == pytest.approx(1.0)
    assert effective(columns, row, "a/kernel", 100) == pytest.approx(0.1)
    assert math.isnan(step_ratio(columns, row, "b/kernel"))


def test_weights_of_zero() -> None:
    """They move without bound, or not at all."""
    for moved, ratio in ((1.0, math.inf), (0.0, 0.0)):
        values = {"weight_norm": 0.0, "update_norm": moved}
        schema, block = run(weights("a/kernel", **values))
        row = next(xrays(block))
        assert step_ratio(Columns(schema), row, "a/kernel") == ratio


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
        schema, block = run({**columns, ("batch_example_std", "targets"): 1.0})
        assert blind(Columns(schema), next(xrays(block))) == result


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
    }
    schema, block = run(columns)
    assert answers(Columns(schema), next(xrays(block))) == result


def test_owner() -> None:
    """The layer of a variable."""
    assert owner("model/dense/kernel") == "model/dense"
