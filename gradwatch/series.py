"""What values are folded into: the newest, a distribution, a short history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Block, Schema

__all__ = ["Distribution", "History", "Newest"]

_POINTS = 120


class Newest:
    """The newest value of each slot; X-ray slots keep that of the last X-ray.

    Args:
        schema: names the columns, K in all.
        kept: the columns to tell, ascending.
    """

    def __init__(self, schema: Schema, kept: Sequence[int]) -> None:
        self._slots = schema.slots
        self._kept = kept
        self._xray = schema.xray
        self._row = np.zeros(len(schema.slots), np.float32)
        self._measured = np.zeros(len(schema.slots), np.bool_)

    def add(self, block: Block) -> None:
        """Takes the next rows."""
        xrays = block.values[block.xray]
        for columns, rows in (~self._xray, block.values), (self._xray, xrays):
            if len(rows):
                self._row[columns] = rows[-1, columns]
                self._measured |= columns

    def plain(self) -> list[list[Any]]:
        """Returns `[signal, subject, value]` of what has been measured."""
        return [
            [*self._slots[i], float(self._row[i])]
            for i in self._kept
            if self._measured[i]
        ]


class Distribution:
    """A cumulative histogram of finite values, as Prometheus counts them.

    Args:
        edges: upper bounds of the buckets, ascending, without +Inf.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = np.asarray(edges, np.float64)
        self.counts = np.zeros(len(edges) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Counts `values`, any shape; those that are not finite are ignored."""
        finite = np.asarray(values, np.float64)
        finite = finite[np.isfinite(finite)]
        places = np.searchsorted(self.edges, finite)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.sum += float(finite.sum())

    def plain(self) -> dict[str, Any]:
        """Returns `edges`, per-bucket `counts` (one more) and `sum`."""
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "sum": self.sum,
        }


class History:
    """At most `_POINTS` rows over the whole run: the stride doubles.

    Attributes:
        steps: numbers of the steps kept.
        rows: float32 `[S]` for each of them.
    """

    def __init__(self) -> None:
        self._stride = 1
        self.steps: list[int] = []
        self.rows: list[NDArray[np.float32]] = []

    def add(self, steps: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Takes `rows`, `[B, S]`, of `steps`, `[B]`."""
        shown = steps % self._stride == 0
        for step, row in zip(steps[shown].tolist(), rows[shown], strict=True):
            if step % self._stride:  # it may have doubled meanwhile
                continue
            self.steps.append(step)
            self.rows.append(row.copy())
            if len(self.steps) > _POINTS:
                self._stride *= 2
                keep = [not s % self._stride for s in self.steps]
                self.rows = [r for r, k in zip(self.rows, keep) if k]
                self.steps = [s for s, k in zip(self.steps, keep) if k]
