"""Evidence: what rules about weights and units ask before they speak up.

An odd gradient or unit is no fault as long as the model learns. So these rules
look at how much there is still to learn, at how far a step moves a weight, and
at whether the inputs say anything at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Block, Record, Schema
from gradwatch.rules.rows import Columns, Row
from gradwatch.rules.windows import Window

__all__ = [
    "Headroom",
    "Seen",
    "Streaks",
    "answers",
    "blind",
    "drawn",
    "effective",
    "kernels",
    "owner",
    "places",
    "plan",
    "step_ratio",
]

_FIRST = 8
_RECENT = 16
_BATCH = 16
_UNPLANNED = 10_000


class Headroom:
    """How much of what can be learned from the targets is still to be lost.

    Definition: at an X-ray, `(loss - lowest) / (constant - lowest)` of the
    compiled losses on its own batch: 1 is as good as the best constant answer,
    0 is the best there is. It needs 16 examples and no sample weights; a batch
    of a few is fitted too well by its own mean. Where it is not known, the
    median of the last 16 losses over that of the run's first 8. NaN where
    neither means anything, and while the learning rate is 0.
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._recent = np.zeros(0, np.float32)

    def begin(self, schema: Schema) -> None:
        """Takes the columns of a new Schema."""
        self._columns = Columns(schema)
        self._loss = schema.column("loss")
        share = schema.column("xray_share")  # measured in each of them
        self._xray = schema.xray if share is None else [share]

    def xrays(self, record: Record | Window) -> Iterator[tuple[Row, float]]:
        """Yields the X-rays among new rows, and what is left at each."""
        if not isinstance(record, Block | Window) or self._loss is None:
            return
        losses = record.values[:, self._loss]
        missing = _FIRST - len(self._first)
        self._first += [float(v) for v in losses[:missing] if np.isfinite(v)]
        known = np.concatenate([self._recent, losses])
        before = len(self._recent)
        self._recent = known[-_RECENT:]
        for place in np.flatnonzero(self._xrayed(record)).tolist():
            row = Row(int(record.steps[place]), record.values[place])
            end = before + place + 1
            yield row, self._left(row, known[max(end - _RECENT, 0) : end])

    def _xrayed(self, record: Block | Window) -> NDArray[np.bool_]:
        if isinstance(record, Block):
            return record.xray
        measured = np.isfinite(record.values[:, self._xray])
        return np.asarray(measured.any(1), np.bool_)

    def _left(self, row: Row, recent: NDArray[np.float32]) -> float:
        columns = self._columns
        if columns.get(row, "learning_rate") == 0.0:
            return math.nan
        constants = columns.all(row, "component_constant_loss")
        parts = [part for part, v in constants.items() if np.isfinite(v)]
        weighted = "sample_weights" in columns.all(row, "batch_mean")
        few = not columns.get(row, "examples") >= _BATCH
        if not parts or weighted or few:
            return self._since_first(recent)
        constant, lowest, loss = (
            sum(columns.get(row, signal, part) for part in parts)
            for signal in (
                "component_constant_loss",
                "component_lowest_loss",
                "loss_component",
            )
        )
        gap = constant - lowest
        return (loss - lowest) / gap if gap > 1e-6 * abs(constant) else math.nan

    def _since_first(self, recent: NDArray[np.float32]) -> float:
        if len(self._first) < _FIRST or len(recent) < _RECENT:
            return math.nan
        first = float(np.median(self._first))
        return float(np.median(recent)) / first if first > 0 else math.nan


def owner(path: str) -> str:
    """Returns the layer of a variable, by its path."""
    return path.rpartition("/")[0]


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


def step_ratio(columns: Columns, row: Row, path: str) -> float:
    """Returns how far the step moved a variable, by its own norm.

    Of the entries that have a gradient: rows of an embedding that no example
    asked for do not count.
    """
    moved = columns.get(row, "variable_update_norm", path)
    norm = columns.get(row, "variable_weight_norm", path)
    if norm == 0.0:
        return math.inf if moved else 0.0
    return moved / norm / _part(columns, row, path)


def effective(columns: Columns, row: Row, path: str, size: int) -> float:
    """Returns the root mean square of a gradient's entries that are not 0."""
    norm = columns.get(row, "variable_gradient_norm", path)
    return norm / math.sqrt(size) / _part(columns, row, path)


def _part(columns: Columns, row: Row, path: str) -> float:
    zeros = columns.get(row, "variable_zero_gradient_ratio", path)
    return math.sqrt(1.0 - zeros) if 0.0 <= zeros < 1.0 else 1.0


def answers(columns: Columns, row: Row) -> bool:
    """Whether predictions depend on the inputs, by more than 1 % of their rms.

    False also where there are none to look at.
    """
    found = columns.all(row, "batch_example_std").items()
    deviations = {k: v for k, v in found if k.split("/")[0] == "predictions"}
    return any(
        deviation
        > 0.01
        * math.hypot(
            columns.get(row, "batch_mean", name),
            columns.get(row, "batch_std", name),
        )
        for name, deviation in deviations.items()
    )


def blind(columns: Columns, row: Row) -> bool:
    """Whether all examples of the batch have the same inputs."""
    deviations: list[float] = []
    for signal in ("batch_example_std", "batch_std"):
        found = columns.all(row, signal)
        deviations = [
            value
            for name, value in found.items()
            if name.split("/")[0] == "inputs" and np.isfinite(value)
        ]
        if deviations:
            break
    return bool(deviations) and max(deviations) == 0.0


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
