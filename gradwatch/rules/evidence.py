"""Evidence: what rules about weights and units ask before they speak up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Schema
from gradwatch.rules.rows import Columns, Read, Row

__all__ = [
    "ALIKE",
    "BATCH",
    "Seen",
    "Streaks",
    "bounded",
    "constant_loss",
    "drawn",
    "fitted",
    "kernels",
    "owned",
    "owner",
    "places",
    "plan",
    "step_ratios",
]

BATCH = 16
"""Examples; the best constant answer to a batch of fewer fits it too well."""

ALIKE = 1e-6
"""Share of the constant answer's loss; what is between it and the lowest is no
more than rounding where all targets are alike."""

_UNPLANNED = 10_000


def owner(path: str) -> str:
    """Returns the layer of a variable, by its path."""
    return path.rpartition("/")[0]


def owned(schema: Schema) -> dict[str, list[str]]:
    """Returns layer -> its variables that have a gradient, in order."""
    layers: dict[str, list[str]] = {}
    for path in schema.columns("variable_gradient_norm"):
        layers.setdefault(owner(path), []).append(path)
    return layers


def kernels(anatomy: Anatomy, schema: Schema) -> list[str]:
    """Returns kernels and embeddings that are trained, in order.

    They are the variables of several axes that are no biases, as those of
    attention's heads are.
    Variables come in call order, also those of nested models, whose layers
    Keras lists backwards.
    """
    measured = schema.columns("variable_gradient_norm")
    return [
        v.path
        for v in anatomy.variables
        if v.path in measured
        and len(v.shape) > 1
        and not v.path.endswith("bias")
    ]


def drawn(path: str) -> bool:
    """Whether a variable's scale follows from its number of inputs."""
    return not path.endswith(("embeddings", "recurrent_kernel"))


def plan(anatomy: Anatomy, step: int) -> int:
    """Returns the steps of the run, many where nobody knows."""
    return max(anatomy.planned_steps or _UNPLANNED, step + 1)


def bounded(columns: Columns) -> Read:
    """Returns what reads compiled losses next to what they could be.

    It gives float64 `[parts, 3]`: of the best constant answer, the lowest one,
    and the loss itself; of the parts whose constant is known.
    """
    measured = columns.subjects("loss_component")
    parts = columns.subjects("component_constant_loss")
    parts = [part for part in parts if part in measured]
    signals = ("component_constant_loss", "component_lowest_loss")
    reads = [columns.reader(s, parts) for s in (*signals, "loss_component")]

    def read(row: Row) -> NDArray[np.float64]:
        losses = np.stack([one(row) for one in reads], 1)
        return losses[np.isfinite(losses[:, 0])]

    return read


def constant_loss(columns: Columns, row: Row, part: str) -> float:
    """Returns what the best constant answer costs a part of the loss.

    NaN where that is not known, and where all targets of the batch are alike,
    so that a constant is the best answer there is: a batch without an example
    of the rare class says nothing about what constants cost in others.
    """
    constant = columns.get(row, "component_constant_loss", part)
    lowest = columns.get(row, "component_lowest_loss", part)
    alike = constant - lowest <= ALIKE * abs(constant)
    return math.nan if alike else constant


def fitted(columns: Columns, row: Row) -> float:
    """Returns by what the loss of a batch's own best constant is too low.

    It is fitted to the batch: of a mean of squares by 1/n, of the entropy of d
    classes by about (d - 1) / 2n (Miller 1955).
    """
    n = columns.get(row, "examples")
    d = columns.get(row, "batch_distinct", "targets")
    few = max(1.0, (d - 1) / (2 * math.log(d))) if 1 < d < n else 1.0
    return 1 + few / n if n > 0 else 1.0


def step_ratios(columns: Columns, paths: Sequence[str]) -> Read:
    """Returns what reads how far a step moved variables, by their own norms.

    Of the entries that have a gradient: rows of an embedding that no example
    asked for do not count. NaN where it is not known.
    """
    reads = [
        columns.reader(f"variable_{signal}", paths)
        for signal in ("update_norm", "weight_norm", "zero_gradient_ratio")
    ]

    def read(row: Row) -> NDArray[np.float64]:
        moved, norm, zeros = (one(row) for one in reads)
        some = (zeros >= 0.0) & (zeros < 1.0)
        part = np.sqrt(1.0 - np.where(some, zeros, 0.0))
        resting = np.where(moved == 0.0, 0.0, np.inf)
        with np.errstate(all="ignore"):  # NaN is data
            ratios = moved / norm / part
        return np.where(norm == 0.0, resting, ratios)

    return read


class Seen(NamedTuple):
    """X-rays in a row at which a layer was wrong."""

    first: int
    times: int
    value: float


def places(anatomy: Anatomy) -> dict[str, int]:
    """Where each layer with weights comes; those of nested models too."""
    places: dict[str, int] = {}
    for i, variable in enumerate(anatomy.variables):
        places.setdefault(owner(variable.path), i)
    return places


class Streaks:
    """Counts X-rays in a row, layer by layer."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def take(self, step: int, values: dict[str, float]) -> None:
        """Takes the layers that are wrong at this X-ray; all others end."""
        self.seen = {
            path: Seen(before.first, before.times + 1, value)
            for path, value in values.items()
            for before in [self.seen.get(path, Seen(step, 0, 0.0))]
        }

    def lasting(self, count: int) -> dict[str, Seen]:
        """Returns the layers that were wrong `count` times in a row."""
        return {p: s for p, s in self.seen.items() if s.times >= count}
