"""Do targets fit the loss? Synthetic X-rays, and what is told instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.rules.outputs import OutputMismatch
from gradwatch.rules.targets import TargetMismatch
from gradwatch.signals import Slot
from tests.rules.fields import anatomy, judge, xray

RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, 3, (32, 1))
NUMBERS = RANDOM.normal(size=(32, 3))
ROWS = np.exp(NUMBERS) / np.exp(NUMBERS).sum(-1, keepdims=True)
ONE_HOT = np.eye(3)[IDS[:, 0]]
SIGMOID = 1 / (1 + np.exp(-NUMBERS))
SPARSE = "sparse_categorical_crossentropy"
IGNORING = {
    "class_name": "SparseCategoricalCrossentropy",
    "ignore_class": -1,
    "name": "ids",
}
PART = ("loss_component", "component_constant_loss")


def _rows(y: Any, p: Any, loss: float = 1.0, constant: float = 9.0) -> Any:
    fields = {"targets": y, "predictions": p}
    known = {Slot(s, "part"): v for s, v in zip(PART, (loss, constant))}
    return [xray(step, fields, known) for step in (10, 20, 50, 100)]


@pytest.mark.parametrize(
    ("loss", "targets", "predictions", "says"),
    [
        ("binary_crossentropy", IDS, SIGMOID, "[0, 1]"),
        ("binary_crossentropy", 2 * (IDS > 0) - 1, SIGMOID, "-1 to 1"),
        ("BinaryCrossentropy", 255 * SIGMOID, SIGMOID, "no lower bound"),
        (
            {"class_name": "BinaryCrossentropy", "name": "b"},
            NUMBERS,
            SIGMOID,
            "[0, 1]",
        ),
        (SPARSE, IDS - 1, ROWS, "begin at 0"),
        (SPARSE, IDS + 1, ROWS, "end at 2"),
        (SPARSE, IDS / 2, ROWS, "not whole"),
        ("categorical_crossentropy", NUMBERS, ROWS, "rows"),
        ("mse", IDS, ROWS, "as if they were numbers"),
        ("hinge", 3 * NUMBERS, NUMBERS, "-1 and 1"),
        ("poisson", NUMBERS, np.exp(NUMBERS), "counts"),
    ],
)
def test_targets_that_do_not_fit(
    loss: Any, targets: Any, predictions: Any, says: str
) -> None:
    """Told at the first X-ray; nothing is said about the output then."""
    facts, rows = anatomy(loss, "", 3), _rows(targets, predictions)
    (finding,) = judge(TargetMismatch(), facts, rows)
    assert (finding.subject, finding.last_step) == ("targets", 10)
    assert says in finding.message
    assert judge(OutputMismatch(), facts, rows) == []


@pytest.mark.parametrize(
    ("loss", "targets", "predictions"),
    [
        ("binary_crossentropy", SIGMOID, SIGMOID),
        ("binary_crossentropy", 0.7 + 0.5 * SIGMOID, SIGMOID),
        (SPARSE, IDS, ROWS),
        (IGNORING, IDS - 1, ROWS),
        ("categorical_crossentropy", ONE_HOT, ROWS),
        ("categorical_crossentropy", 0.9 * ONE_HOT + 1 / 30, ROWS),
        ("categorical_crossentropy", ONE_HOT * (IDS > 0), ROWS),
        ("categorical_crossentropy", 15 * ONE_HOT, ROWS),
        ("mse", ONE_HOT, ROWS),
        ("mse", IDS, NUMBERS),
        ("hinge", 2 * (IDS > 0) - 1, NUMBERS),
        ("poisson", IDS, np.exp(NUMBERS)),
        ("lambda", 99 * NUMBERS, ROWS),
    ],
)
def test_targets_that_fit(loss: Any, targets: Any, predictions: Any) -> None:
    """Soft labels, padding, weighted rows, ids that are left out: silence."""
    facts, rows = anatomy(loss, "", 3), _rows(targets, predictions)
    assert judge(TargetMismatch(), facts, rows) == []


def test_rows_that_are_no_probabilities() -> None:
    """Ids, repeated: told when nothing is learned at step 50, no sooner."""
    facts = anatomy("categorical_crossentropy", "softmax", 3)
    rows = _rows(np.repeat(IDS, 3, 1), ROWS, 3.3, 3.3)
    (finding,) = judge(TargetMismatch(), facts, rows)
    assert finding.last_step == 50
    rows = _rows(np.repeat(IDS, 3, 1), ROWS, 2.0, 3.3)
    assert judge(TargetMismatch(), facts, rows) == []


@settings(max_examples=15)
@given(
    st.integers(2, 30),
    st.integers(0, 9999),
    st.sets(st.integers(1, 3)),
)
def test_class_ids_of_any_number(n: int, seed: int, cuts: set[int]) -> None:
    """Ids below the number of outputs are fine, one more is not."""
    random = np.random.default_rng(seed)
    p = np.exp(random.normal(size=(32, n)))
    p /= p.sum(-1, keepdims=True)
    y = np.append(random.integers(0, n, 31), n - 1)
    facts = anatomy(SPARSE, "softmax", n)
    places = sorted(cuts)
    assert judge(TargetMismatch(), facts, _rows(y, p), places) == []
    (finding,) = judge(TargetMismatch(), facts, _rows(y + 1, p), places)
    assert f"end at {n - 1}" in finding.message


def test_a_compiled_loss_that_is_not_used() -> None:
    """A `compute_loss` of the user's own compares something else."""
    rows = _rows(99 * NUMBERS, SIGMOID)
    rows = [
        {s._replace(subject=s.subject.replace("part", "mine")): r[s] for s in r}
        for r in rows
    ]
    facts = anatomy("binary_crossentropy", "sigmoid", 3)
    assert judge(TargetMismatch(), facts, rows) == []
