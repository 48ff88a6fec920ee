"""What a run's values are folded into: a distribution and a short history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Distribution", "History"]

_POINTS = 120


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
