"""What the set claims of each faulty piece of code is so, by other means."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.audit import planted
from tests.audit.checks import (
    advantage,
    dependence,
    exact,
    finite,
    growth,
    still,
    subject,
    weighted,
    witness,
)
from tests.audit.oracle import Subject, disagreement, sample
from tests.audit.planted import PLANTED
from tests.audit.records import Kind, Planted

WRONG = 2e-2
"""Relative error above which a gradient is not that of the function."""

ALONE = {
    "layer_manual_dense": "kernel",
    "layer_learned_leak": "slope",
    "backward_gate": "switch",
    "backward_add_bias": "bias",
    "backward_scale_channels": "gain",
}
"""Code with several gradients of which one is wrong, and which."""

MASKED = ("burst_masked_error", "burst_percentage_error")
"""Their special places are common: a random argument may be one."""


def _of(*kinds: Kind) -> Any:
    chosen = [p for p in PLANTED if p.expected in kinds]
    return pytest.mark.parametrize("case", chosen, ids=lambda p: p.name)


def test_the_set_is_large_and_named() -> None:
    """Names are unique, every kind occurs."""
    names = [case.name for case in PLANTED]
    assert len(set(names)) == len(names)
    kinds = Counter(p.expected for p in PLANTED)
    assert set(kinds) == set(get_args(Kind))
    assert min(kinds.values()) >= 3
    assert kinds["wrong_gradient"] >= 12
    assert len(PLANTED) >= 36


def test_lines_are_in_the_code_once() -> None:
    """What is to be named can be found in the file of the code."""
    for case in PLANTED:
        made = inspect.unwrap(getattr(case.make(), "function", case.make()))
        made = made if inspect.isfunction(made) else type(made)
        path = Path(sys.modules[made.__module__].__file__ or "")
        assert path.parent == Path(planted.__file__).parent
        text = path.read_text()
        times = text.count(case.line) - text.count(f'"{case.line}"')
        assert times == 1 or not case.line, case.name


@pytest.mark.parametrize("case", PLANTED, ids=lambda p: p.name)
def test_it_runs_in_float32(case: Planted) -> None:
    """Plausible arguments give a result, finite but for special places."""
    made = subject(case)
    results = made.call(sample(made.names, case.inputs, 5))
    assert results
    if case.witness is None:
        assert all(np.isfinite(np.asarray(y)).all() for y in results)


@_of("wrong_gradient")
def test_wrong_gradients_differ_from_differences(case: Planted) -> None:
    """Central differences contradict one gradient at least, clearly."""
    made = exact(case)
    values = sample(made.names, case.inputs, 0)
    if case.witness is not None:
        assert max(disagreement(made, values, still(case)).values()) < WRONG
        values = witness(case)
    errors = disagreement(made, values, still(case))
    assert max(errors.values()) > WRONG, errors
    for name, error in errors.items():
        if case.name in ALONE:
            wrong = name.split("/")[-1] == ALONE[case.name]
            assert (error > WRONG) == wrong, errors


@_of(
    "zero_gradient",
    "not_at_minimum",
    "batch_mixed",
    "vanishing",
    "exploding",
)
def test_other_faults_come_with_right_gradients(case: Planted) -> None:
    """One fault only: the gradient is that of the code as written."""
    made = exact(case)
    values = sample(made.names, case.inputs, 0)
    errors = disagreement(made, values, still(case))
    assert max(errors.values()) < 1e-4, errors


@_of("missing_gradient")
def test_missing_gradients_are_none(case: Planted) -> None:
    """The tape finds no way to what should learn."""
    made = subject(case)
    found = made.gradients(sample(made.names, case.inputs, 0))
    last = made.names[-1]
    learns = [w.path for w in made.weights] or [last]
    assert any(found[name] is None for name in learns), found


@_of("zero_gradient")
def test_zero_gradients_are_zero_everywhere(case: Planted) -> None:
    """At twenty random places the gradient is there, and 0."""
    made = subject(case)
    name = ""
    for seed in range(20):
        values = sample(made.names, case.inputs, seed)
        found = made.gradients(values)
        name = made.weights[0].path if made.weights else made.names[-1]
        gradient = found[name]
        assert gradient is not None
        assert not gradient.any(), gradient
    assert name


@_of("not_finite")
def test_witnesses_are_not_finite(case: Planted) -> None:
    """At the witness a value or gradient is not finite; elsewhere all are."""
    made = subject(case)
    assert not finite(made, witness(case), case.xla)
    if case.xla:
        assert finite(made, witness(case))
    inside = sample(made.names, case.inputs, 5)
    if "keep" in inside:
        inside["keep"] = np.ones_like(inside["keep"])
    assert case.name in MASKED or finite(made, inside)


@_of("swallowed_epsilon")
def test_more_precision_would_save_the_epsilon(case: Planted) -> None:
    """The same code is finite where the epsilon still counts."""
    assert not finite(subject(case), witness(case))
    if case.name == "layer_half_norm":
        layer = type(case.make())
        assert finite(Subject(layer, "float32"), witness(case))
    else:
        assert finite(subject(case, "float64"), witness(case))


@_of("not_at_minimum")
def test_losses_are_better_off_target(case: Planted) -> None:
    """For random targets another prediction has a smaller loss."""
    gains = [advantage(case, seed) for seed in range(5)]
    assert min(gains) > 1e-2, gains


@_of("batch_mixed")
def test_examples_depend_on_each_other(case: Planted) -> None:
    """Alone, or in another order, examples do not get the same result."""
    made = subject(case)
    assert dependence(made, sample(made.names, case.inputs, 0)) > 1e-2


@_of("weight_ignored")
def test_weights_do_not_choose_examples(case: Planted) -> None:
    """An example of weight 0 has the same part in the loss as any other."""
    assert weighted(case) < 1e-6


@_of("vanishing")
def test_stacks_shrink(case: Planted) -> None:
    """Less than a thirtieth of a gradient passes each layer."""
    assert growth(case.make) < 0.03


@_of("exploding")
def test_stacks_grow(case: Planted) -> None:
    """Each layer more than triples a gradient, or it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        assert not growth(case.make) < 3.0
