"""A run whose loss is counted in another unit: findings should be the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Block, Epoch, Schema
from gradwatch.replay import Opened
from gradwatch.testing.recording import Recording

__all__ = ["in_unit"]

_GROWS = {
    "loss",
    "gradient_norm",
    "applied_gradient_norm",
    "loss_component",
    "raw_loss_component",
    "optimizer_gradient_norm",
    "optimizer_applied_gradient_norm",
    "variable_gradient_norm",
    "variable_gradient_max_abs",
    "example_loss_median",
    "example_loss_high",
    "example_loss_max",
    "component_gradient_norm",
    "component_lowest_loss",
    "component_constant_loss",
}
_SHRINKS = {"learning_rate", "optimizer_learning_rate"}  # of SGD


def in_unit(recording: Recording, factor: float) -> Recording:
    """Returns the run as it would be with a loss `factor` times as large.

    Weights take the same way: an optimizer that divides by the size of its
    gradients does not notice, and gradient descent is given a rate that is
    smaller by as much. Losses, gradients, and what targets allow, grow.
    Histograms stay; no rule looks at them.

    Args:
        recording: what rules got.
        factor: above 0. Numbers that do not fit into float32 become 0 or Inf.
    """
    received: list[Any] = []
    scales: NDArray[np.float32] = np.ones(0, np.float32)
    for item in recording.received:
        if isinstance(item, Opened):
            scales = _scales(item.anatomy, item.schema, factor)
        elif isinstance(item, Block):
            with np.errstate(over="ignore", under="ignore"):
                item = replace(item, values=item.values * scales)
        elif isinstance(item, Epoch):
            item = replace(
                item,
                metrics=_grown(item.metrics, factor),
                validation=_grown(item.validation, factor),
            )
        received.append(item)
    return replace(recording, received=tuple(received))


def _scales(
    anatomy: Anatomy, schema: Schema, factor: float
) -> NDArray[np.float32]:
    """What each column is multiplied by, float32 `[K]`."""
    rate = 1 / factor if anatomy.optimizer.get("class_name") == "SGD" else 1.0
    found = [
        factor if s.signal in _GROWS else rate if s.signal in _SHRINKS else 1.0
        for s in schema.slots
    ]
    return np.array(found, np.float32)


def _grown(values: Mapping[str, float], factor: float) -> dict[str, float]:
    """Losses as Keras names them, `loss` or `<output>_loss`; no metrics."""
    return {
        name: value * (factor if name.endswith("loss") else 1.0)
        for name, value in values.items()
    }
