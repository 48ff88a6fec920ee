"""Gradients that fade over depth, and layers that are slow otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.records import Finding
from gradwatch.rules.depth import VanishingGradient
from tests.rules.made import XRAYS, dense, judged, learning, weights

DEPTH = 8
MODEL = dense(*[(f"layer_{i}", (32, 32), 0.2) for i in range(DEPTH)])


def test_without_biases() -> None:
    """Kernels tell; entries that are 0 would not count."""
    columns = learning(2.31)
    for i in range(DEPTH):
        size = 0.1 ** (DEPTH - 1 - i)
        values = {"gradient_norm": size, "update_norm": 0.1 * size}
        columns |= weights(f"layer_{i}/kernel", **values)
    (finding,) = judged(VanishingGradient(), MODEL, columns)
    assert finding.last_step == 50


def _deep(
    factor: float = 0.15,
    rate: float = 0.1,
    loss: Any = 2.31,
    biases: float | None = None,
    moved: Any = None,
    growth: float = 1.0,
    cuts: Any = (),
) -> list[Finding]:
    """Each layer's gradient is `factor` times that of the layer behind it."""
    columns = learning(loss)
    time = growth ** np.searchsorted(XRAYS, np.arange(300))
    for i in range(DEPTH):
        size = factor ** (DEPTH - 1 - i)
        step = rate * size * time if moved is None else moved
        update = {"update_norm": step}
        columns |= weights(f"layer_{i}/kernel", gradient_norm=size, **update)
        error = size if biases is None else biases
        columns |= weights(f"layer_{i}/bias", gradient_norm=error, **update)
    return judged(VanishingGradient(), MODEL, columns, cuts=cuts)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 299)))
def test_sigmoids_on_top_of_each_other(cuts: set[int]) -> None:
    """Told at the third X-ray, with the profile."""
    (finding,) = _deep(cuts=cuts)
    assert (finding.severity, finding.subject) == ("warning", "layer_0/kernel")
    assert (finding.first_step, finding.last_step) == (10, 50)
    profile = finding.evidence["profile"]
    assert [path for path, *_ in profile] == [
        f"layer_{i}/kernel" for i in range(DEPTH)
    ]
    assert finding.evidence["falls_most_between"][0].endswith("/kernel")


@pytest.mark.parametrize(
    "healthy",
    [
        {"factor": 0.8},
        {"moved": 1e-3},  # Adam: all layers move by its rate
        {"rate": 1e-9},  # nothing moves: the rate is too low
        {"loss": 2.3 * np.exp(-np.arange(300) / 20)},
        {"biases": 1.0},  # small inputs
        {"growth": 40.0},  # it is getting out
    ],
)
def test_no_fault_of_depth(healthy: Any) -> None:
    """What falls must also stand still, with something left to learn."""
    assert _deep(**healthy) == []


def test_faint_both_ways() -> None:
    """Kernels see inputs that fade and errors that do: biases tell."""
    columns = learning(2.31)
    for i in range(DEPTH):
        small = {"gradient_norm": 1e-9, "update_norm": 1e-10}
        columns |= weights(f"layer_{i}/kernel", **small)
        error = 0.03 ** (DEPTH - 1 - i)
        columns |= weights(f"layer_{i}/bias", gradient_norm=error)
    (finding,) = judged(VanishingGradient(), MODEL, columns)
    assert finding.evidence["profile"][-1][1] > 0.1


def test_one_layer_in_between_does_not_fade() -> None:
    """Attention: queries get little at first, values much."""
    sizes = [1e-6, 1e-6, 1.0, 1e-3, *[1.0] * 4]
    columns = learning(2.31)
    for i, size in enumerate(sizes):
        values = {"gradient_norm": size, "update_norm": 0.1 * size}
        columns |= weights(f"layer_{i}/kernel", **values)
        columns |= weights(f"layer_{i}/bias", **values)
    assert judged(VanishingGradient(), MODEL, columns) == []


def test_rows_of_an_embedding_that_nobody_asked_for() -> None:
    """Entries without a gradient do not make the others small."""
    columns = learning(2.31)
    for i in range(DEPTH):
        values: dict[str, Any] = {"gradient_norm": 1.0, "update_norm": 0.1}
        if i < 2:
            values |= {"gradient_norm": 5e-3, "zero_gradient_ratio": 0.9999}
        columns |= weights(f"layer_{i}/kernel", **values)
    assert judged(VanishingGradient(), MODEL, columns) == []
