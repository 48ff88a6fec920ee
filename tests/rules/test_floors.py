"""Losses that cannot be lower: what passes through few units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.rules.floors import LossFloor
from gradwatch.signals import Slot
from tests.rules import made
from tests.rules.synthetic import judged

STEPS = np.arange(400)


def _told(kept: int, gain: float, mean: float = 0.3, slope: float = 0.0) -> Any:
    """An autoencoder of sixteen numbers through `kept` units."""
    facts = made.dense(
        ("net/code", (16, kept), 0.2), ("net/out", (kept, 16), 0.2), planned=400
    )
    noise = 0.02 * np.random.default_rng(0).normal(size=400)
    loss = 1 - gain - slope * (STEPS - 200) + noise
    columns: dict[Any, Any] = {
        Slot("loss"): loss,
        Slot("loss_component", "mse"): loss,
        Slot("examples"): 500.0,
        Slot("component_constant_loss", "mse"): 1.0,
        Slot("component_lowest_loss", "mse"): 0.0,
        Slot("batch_mean", "inputs"): 0.3,
        Slot("batch_mean", "targets"): mean,
    }
    for signal in ("std", "min", "max"):
        for name in ("inputs", "targets"):
            columns[Slot(f"batch_{signal}", name)] = 1.0
    return judged(LossFloor(), columns, made.XRAYS, facts)


@pytest.mark.parametrize(("kept", "gain"), [(4, 0.26), (8, 0.55), (2, 0.14)])
def test_numbers_that_do_not_depend_on_each_other(
    kept: int, gain: float
) -> None:
    """As many are kept as there are units; nothing is wrong."""
    (finding,) = _told(kept, gain)
    assert finding.severity == "info"
    assert f"{kept} units keep" in finding.message


@pytest.mark.parametrize(
    ("kept", "gain", "options"),
    [
        (4, 0.1, {}),
        (4, 0.8, {}),
        (16, 0.9, {}),
        (4, 0.26, {"mean": 0.5}),
        (4, 0.26, {"slope": 0.0008}),
    ],
)
def test_no_floor(kept: int, gain: float, options: Any) -> None:
    """Too high, far lower, no bottleneck, other targets, still falling."""
    assert _told(kept, gain, **options) == []
