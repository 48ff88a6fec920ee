"""Findings do not depend on what is no part of a training's fortune."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import default_rules
from gradwatch.records import Block
from gradwatch.replay import Opened, judge
from gradwatch.testing.measure import measure
from gradwatch.testing.recording import Recording
from gradwatch.testing.variants import (
    in_other_order,
    inputs_in_unit,
    with_split_kernels,
)
from gradwatch.testing.zoo import SCENARIOS


@pytest.fixture(scope="module", params=["iris_momentum", "constant_weights"])
def run(request: pytest.FixtureRequest) -> Recording:
    """A run that is healthy, and one whose units are copies of each other."""
    (scenario,) = [s for s in SCENARIOS if s.name == request.param]
    return measure(scenario)


def _said(run: Recording) -> list[tuple[str, str]]:
    """Rule and severity of what is found."""
    found = judge(default_rules(), run.received)
    return [(finding.rule, finding.severity) for finding in found]


def _rows(run: Recording) -> Any:
    blocks = [r.values for r in run.received if isinstance(r, Block)]
    return np.concatenate([b for b in blocks if len(b)])


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_inputs_in_another_unit(run: Recording, factor: float) -> None:
    """As long as the first kernel makes up for it."""
    other = inputs_in_unit(run, factor)
    assert other is not None
    assert _said(other) == _said(run)
    opened = [r for r in run.received if isinstance(r, Opened)][-1]
    columns = list(opened.schema.columns("variable_gradient_norm").values())
    norms = np.linalg.norm(_rows(other)[:, columns], axis=1)
    total = _rows(other)[:, opened.schema.column("gradient_norm")]
    np.testing.assert_allclose(total, norms, rtol=1e-5)
    back = inputs_in_unit(other, 1 / factor)
    assert back is not None
    np.testing.assert_allclose(_rows(back), _rows(run), rtol=1e-4, atol=1e-30)


def test_batches_in_another_order(run: Recording) -> None:
    """The rows are the same ones, X-rays at their places."""
    for seed in range(3):
        other = in_other_order(run, seed)
        assert _said(other) == _said(run)
    before, after = _rows(run), _rows(other)
    assert not np.array_equal(before, after, equal_nan=True)
    for a, b in zip(before.T, after.T):
        np.testing.assert_array_equal(np.sort(a), np.sort(b))


def test_kernels_in_two_pieces(run: Recording) -> None:
    """Twice as many variables, of which none is new."""
    other = with_split_kernels(run)
    assert _said(other) == _said(run)
    opened = [r for r in other.received if isinstance(r, Opened)][-1]
    halves = [v.path for v in opened.anatomy.variables if "second" in v.path]
    assert len(halves) >= 2
    columns = opened.schema.columns("variable_weight_norm")
    first, second = (
        _rows(other)[:, columns[halves[0].replace(kind, "")]]
        for kind in ("second_", "no")
    )
    np.testing.assert_array_equal(first, second)
