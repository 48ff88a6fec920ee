"""Batches that were shuffled, and those that were not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.records import Schema
from gradwatch.rules.order import between_batches
from gradwatch.rules.rows import Columns, Row
from gradwatch.signals import Slot

SCHEMA = Schema(
    (
        Slot("examples"),
        Slot("batch_mean", "targets"),
        Slot("batch_example_std", "targets"),
    )
)


def _ratio(batches: Any) -> float:
    """Of batches of targets, float `[k, n]`."""
    rows = [
        Row(i, np.array([len(y), y.mean(), y.std()], np.float32))
        for i, y in enumerate(batches)
    ]
    return between_batches(Columns(SCHEMA), rows)


def _classes(seed: int, k: int) -> Any:
    return np.random.default_rng(seed).integers(0, 10, (k, 32)).astype(float)


@pytest.mark.parametrize("k", [4, 16])
def test_shuffled_batches(k: int) -> None:
    """One in the mean, 10 in none of 500 runs."""
    found = [_ratio(_classes(seed, k)) for seed in range(500)]
    assert np.mean(found) == pytest.approx(1, abs=0.15)
    assert max(found) < 10


def test_sorted_by_class() -> None:
    """As many as a batch has examples, or more."""
    y = np.sort(_classes(0, 60).ravel()).reshape(60, 32)
    assert _ratio(y[::10]) > 32
    assert _ratio(np.repeat(np.arange(5.0)[:, None], 32, 1)) == np.inf


def test_what_is_not_known() -> None:
    """Three batches are too few; all the same are in no order."""
    assert np.isnan(_ratio(_classes(0, 3)))
    assert _ratio(np.ones((6, 32))) == 0
