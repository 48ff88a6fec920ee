"""The correct pieces of code are so, by other means than the audit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tests.audit.checks import (
    advantage,
    dependence,
    exact,
    finite,
    growth,
    still,
    subject,
    weighted,
)
from tests.audit.correct import CORRECT
from tests.audit.oracle import Arrays, disagreement, sample
from tests.audit.records import Correct

FINE = {"float64": 1e-5, "float32": 2e-2}
"""Relative error of a right gradient, by what the code can be computed in."""

DRAWN = "layer_Sampling"
"""Draws other numbers for other batches."""


_each = pytest.mark.parametrize("case", CORRECT, ids=lambda p: p.name)


def _compares(case: Correct) -> bool:
    """Whether predictions are to be like their targets."""
    told = (case.inputs or {}).values()
    ranges = {(shape, float(low), float(high)) for shape, low, high in told}
    return subject(case).names == ("y_true", "y_pred") and len(ranges) < 2


def test_the_set_is_large_and_named() -> None:
    """Names are unique."""
    assert len({case.name for case in CORRECT}) == len(CORRECT)
    assert len(CORRECT) >= 36


@_each
def test_gradients_agree_with_differences(case: Correct) -> None:
    """Gradients of arguments and variables are the numeric ones."""
    made = exact(case)
    values = sample(made.names, case.inputs, 0)
    errors = disagreement(made, values, still(case))
    assert errors or case.name == "layer_Lookup"
    assert max(errors.values()) < FINE[made.dtype], errors


def _places(case: Correct, names: tuple[str, ...]) -> list[Arrays]:
    """Rim of the domain, ties, zeros, constants, and large values."""
    drawn = sample(names, case.inputs, 3)
    if case.inputs is None:
        levels: list[Any] = [0.0, 1.0, -1.0, 0.25, 100.0, -100.0, 1e4, -1e4]
        places = [{n: np.full_like(drawn[n], v) for n in names} for v in levels]
        spike = {n: np.where(np.eye(8, 4) > 0, 1e2, 0.0) for n in names}
        return [*places, spike, dict.fromkeys(names, drawn[names[0]])]
    places = [drawn]
    for first in _levels(case.inputs[names[0]]):
        for last in _levels(case.inputs[names[-1]]):
            place = {n: np.full_like(drawn[n], last) for n in names}
            place[names[0]] = np.full_like(drawn[names[0]], first)
            places.append(place)
    return places


def _levels(told: tuple[tuple[int, ...], float, float]) -> list[float]:
    _, low, high = told
    if isinstance(low, int):
        return [low, high]
    return [low, high, 0.5 * (low + high), *([0.0] if low < 0 < high else [])]


@_each
def test_it_is_finite_everywhere(case: Correct) -> None:
    """Values and gradients are finite in the domain, at its rim, at ties."""
    made = subject(case)
    for place in _places(case, made.names):
        assert finite(made, place), place


def test_losses_are_best_at_their_target() -> None:
    """No other prediction has a loss that is smaller by more than a trace."""
    losses = [case for case in CORRECT if _compares(case)]
    assert len(losses) > 20
    worse = {
        case.name
        for case in losses
        if max(advantage(case, seed) for seed in range(3)) >= 1e-3
    }
    assert worse <= {"loss_ridge_error"}


@_each
def test_examples_stand_alone(case: Correct) -> None:
    """An example's result is the same without the others, or in any order."""
    made = subject(case)
    values = sample(made.names, case.inputs, 0)
    if "bias" not in values and case.name != DRAWN:
        assert dependence(made, values) < 1e-4


def test_losses_heed_weights() -> None:
    """Each `Loss` depends on which example has the weight."""
    losses = [c for c in CORRECT if isinstance(c.make(), keras.losses.Loss)]
    assert len(losses) >= 3
    for case in losses:
        assert weighted(case) > 1e-2, case.name


def test_stacks_keep_their_scale() -> None:
    """No activation shrinks or grows gradients as the planted ones do.

    But for softmax, which has its place at a model's end.
    """
    count = 0
    for case in CORRECT:
        made = exact(case)
        alone = len(made.names) == 1 and not made.weights
        if not alone or case.inputs is not None or made.names == ("logits",):
            continue
        values = sample(made.names, None, 0)
        shapes = [y.shape for y in made.call(values)]
        if made.dtype == "float64" and shapes == [values[made.names[0]].shape]:
            assert 0.15 < growth(case.make) < 2.0, case.name
            count += 1
    assert count > 15
