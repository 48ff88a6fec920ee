"""Outputs and targets whose numbers have 8 or 11 bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gradwatch.rules.constants import ConstantTarget
from gradwatch.rules.outputs import OutputMismatch
from gradwatch.rules.targets import TargetMismatch
from gradwatch.signals import Slot
from tests.rules.fields import anatomy, judge, xray

_TYPES = [np.float16, ml_dtypes.bfloat16]
_SPARSE = "SparseCategoricalCrossentropy"


def _softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _told(
    dtype: Any, loss: Any, last: str, y: Any, p: Any, units: int = 10
) -> set[str]:
    """Rules that speak of three X-rays of numbers rounded to a type."""
    found: set[str] = set()
    fields = {
        name: np.asarray(values).astype(dtype).astype(np.float32)
        for name, values in {"targets": y, "predictions": p}.items()
    }
    known = {Slot("examples"): float(len(y))}
    for rule in (OutputMismatch(), TargetMismatch(), ConstantTarget()):
        rows = [xray(step, fields, known) for step in (10, 20, 50)]
        told = judge(rule, anatomy(loss, last, units), rows)
        found |= {finding.rule for finding in told}
    return found


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("sure", [0.1, 1.0, 5.0, 30.0])
def test_a_softmax_that_is_right(dtype: Any, classes: int, sure: float) -> None:
    """Rows add up to 1 but for rounding, for few classes and for many."""
    random = np.random.default_rng(classes)
    p = _softmax(sure * random.normal(size=(64, classes)))
    ids = random.integers(0, min(classes, 200), 64)
    loss = {"class_name": _SPARSE, "from_logits": False}
    assert _told(dtype, loss, "softmax", ids, p, classes) == set()
    rows = {"class_name": "CategoricalCrossentropy", "from_logits": False}
    assert (
        _told(dtype, rows, "softmax", np.eye(classes)[ids], p, classes) == set()
    )


@pytest.mark.parametrize("dtype", _TYPES)
def test_what_is_wrong_is_told(dtype: Any) -> None:
    """A softmax over places, logits as probabilities, a tanh for prices."""
    random = np.random.default_rng(0)
    scores, ids = random.normal(size=(2, 64, 10)), random.integers(0, 10, 64)
    loss: dict[str, Any] = {"class_name": _SPARSE, "from_logits": False}
    places = _softmax(scores[0].reshape(16, 4, 10), 1)
    y = ids.reshape(16, 4)
    assert _told(dtype, loss, "softmax", y, places) == {"output_mismatch"}
    assert _told(dtype, loss, "", ids, scores[0]) == {"output_mismatch"}
    prices = 5 + scores[:, :, :1]
    said = _told(dtype, "mse", "tanh", prices[0], np.tanh(prices[1]), 1)
    assert said == {"output_mismatch"}
    assert _told(dtype, loss, "softmax", ids + 1, _softmax(scores[0])) == {
        "target_mismatch"
    }


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("last", ["linear", "softmax"])
def test_an_axis_of_the_loss_is_its_own_matter(dtype: Any, last: str) -> None:
    """Classes before the places: the last axis is none of classes."""
    random = np.random.default_rng(1)
    p = _softmax(random.normal(size=(16, 5, 7)), 1)
    y = random.integers(0, 5, (16, 7))
    loss = {"class_name": _SPARSE, "from_logits": False, "axis": 1}
    assert _told(dtype, loss, last, y, p, 7) == set()
