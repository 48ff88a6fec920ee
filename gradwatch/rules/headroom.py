"""Headroom: X-rays, and how much there was still to learn at each.

An odd gradient or unit is no fault as long as the model learns. Rules about
weights and units may share one Headroom: what several of them ask of an X-ray
is found once.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Block, Record, Schema
from gradwatch.rules.compiled import Compared, compared
from gradwatch.rules.evidence import (
    ALIKE,
    BATCH,
    bounded,
    constant_loss,
    step_ratios,
)
from gradwatch.rules.rows import Columns, Read, Row

__all__ = ["Headroom", "Xray"]

_FIRST = 8
_RECENT = 16
_HALF = 2.0**-24  # the smallest number above 0 of float16


class Xray:
    """What an X-ray shows, and what follows from it, found when asked for.

    Args:
        row: what it measured.
        columns: the row's.
        left: how much of what can be learned is left, see `Headroom`.
        ratios: reads how far the step moved the variables of `paths`.
        paths: the variables.
    """

    def __init__(
        self,
        row: Row,
        columns: Columns,
        left: float,
        ratios: Read,
        paths: list[str],
    ) -> None:
        self.step = row.step
        self.left = left
        self._row, self._columns = row, columns
        self._ratios, self._paths = ratios, paths

    def get(self, signal: str, subject: str = "") -> float:
        """Returns a value; NaN if it is not measured."""
        return self._columns.get(self._row, signal, subject)

    def all(self, signal: str) -> dict[str, float]:
        """Returns subject -> value of a signal, in the slots' order."""
        return self._columns.all(self._row, signal)

    def constant(self) -> float:
        """Returns what the best constant answer costs, 0 if that is unknown."""
        parts = self._columns.subjects("component_constant_loss")
        costs = [constant_loss(self._columns, self._row, p) for p in parts]
        return float(np.nansum(costs))

    def left_of(self, part: str) -> float:
        """Returns what is left to learn of one compiled loss, if it is known.

        As `Headroom` defines it; NaN with few examples or targets all alike.
        """
        few = not self.get("examples") >= BATCH
        constant = constant_loss(self._columns, self._row, part)
        lowest = self.get("component_lowest_loss", part)
        loss = self.get("loss_component", part)
        return math.nan if few else (loss - lowest) / (constant - lowest)

    def outputs(self, anatomy: Anatomy) -> list[Compared]:
        """Returns the outputs of a model with several, as far as known."""
        pairs = compared(anatomy, self._columns, self._row)
        return [pair for pair in pairs if pair.predictions != "predictions"]

    def effective(self, path: str, size: int) -> float:
        """Returns the root mean square of a gradient's entries but zeros.

        Args:
            path: the variable's.
            size: number of its entries.
        """
        norm = self.get("variable_gradient_norm", path)
        zeros = self.get("variable_zero_gradient_ratio", path)
        part = math.sqrt(1.0 - zeros) if 0.0 <= zeros < 1.0 else 1.0
        return norm / math.sqrt(size) / part

    def moved(self, path: str) -> float:
        """Returns how far the step moved a variable, see `step_ratios`."""
        return self._moved.get(path, math.nan)

    @cached_property
    def _moved(self) -> dict[str, float]:
        return dict(zip(self._paths, self._ratios(self._row).tolist()))

    @cached_property
    def answers(self) -> bool:
        """Whether predictions depend on the inputs, by 1 % of their rms.

        False also where there are none to look at.
        """
        found = self.all("batch_example_std").items()
        return any(
            deviation
            > 0.01
            * math.hypot(
                self.get("batch_mean", name), self.get("batch_std", name)
            )
            for name, deviation in found
            if name.split("/")[0] == "predictions"
        )

    @cached_property
    def underflow(self) -> float:
        """The largest gradient that is not 0, if float16 cannot hold it."""
        sizes = self.all("variable_gradient_max_abs").values()
        largest = max([size for size in sizes if size > 0.0], default=0.0)
        return largest if largest < _HALF else 0.0

    @cached_property
    def weightless(self) -> bool:
        """Whether all sample weights of the batch are 0."""
        found = [
            value
            for signal in ("batch_min", "batch_max")
            for name, value in self.all(signal).items()
            if name.split("/")[0] == "sample_weights"
        ]
        return bool(found) and not any(found)

    @cached_property
    def blind(self) -> bool:
        """Whether all examples of the batch have the same inputs."""
        for signal in ("batch_example_std", "batch_std"):
            deviations = [
                value
                for name, value in self.all(signal).items()
                if name.split("/")[0] == "inputs" and math.isfinite(value)
            ]
            if deviations:
                return max(deviations) == 0.0
        return False


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
        self._first = np.zeros(0, np.float32)
        self._recent = np.zeros(0, np.float32)
        self._schema: Schema | None = None
        self._record: Record | None = None
        self._found: list[Xray] = []

    def begin(self, schema: Schema) -> None:
        """Takes the columns of a new Schema."""
        if schema == self._schema:
            return
        self._schema = schema
        self._columns = Columns(schema)
        self._loss = schema.column("loss")
        self._bounded = bounded(self._columns)
        fields = self._columns.subjects("batch_mean")
        self._weighted = "sample_weights" in fields
        self._paths = self._columns.subjects("variable_weight_norm")
        self._ratios = step_ratios(self._columns, self._paths)

    def xrays(self, record: Record) -> list[Xray]:
        """Returns the X-rays of the next record; asked again, the same."""
        if record is not self._record:
            self._record, self._found = record, self._take(record)
        return self._found

    def _take(self, record: Record) -> list[Xray]:
        if not isinstance(record, Block) or self._loss is None:
            return []
        losses = record.values[:, self._loss]
        if len(self._first) < _FIRST:
            finite = losses[np.isfinite(losses)]
            self._first = np.concatenate([self._first, finite])[:_FIRST]
        known = np.concatenate([self._recent, losses])
        before = len(self._recent)
        self._recent = known[-_RECENT:]
        found = []
        for place in np.flatnonzero(record.xray).tolist():
            row = Row(int(record.steps[place]), record.values[place])
            end = before + place + 1
            left = self._left(row, known[max(end - _RECENT, 0) : end])
            xray = Xray(row, self._columns, left, self._ratios, self._paths)
            found.append(xray)
        return found

    def _left(self, row: Row, recent: NDArray[np.float32]) -> float:
        columns = self._columns
        if columns.get(row, "learning_rate") == 0.0:
            return math.nan
        losses = self._bounded(row)
        few = not columns.get(row, "examples") >= BATCH
        if not len(losses) or self._weighted or few:
            return self._since_first(recent)
        constant, lowest, loss = losses.sum(0).tolist()
        gap = constant - lowest
        return (
            (loss - lowest) / gap if gap > ALIKE * abs(constant) else math.nan
        )

    def _since_first(self, recent: NDArray[np.float32]) -> float:
        if len(self._first) < _FIRST or len(recent) < _RECENT:
            return math.nan
        first = float(np.median(self._first.astype(float)))
        return float(np.median(recent)) / first if first > 0 else math.nan
