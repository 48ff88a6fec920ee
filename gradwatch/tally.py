"""The tally of a run's steps: what was bad, dropped, clipped, waited for.

Monotonic counts, folded from Blocks. numpy and the standard library only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Block, Schema

__all__ = ["Tally"]

# Flags do not tell NaN from Inf: all of them count as `nan`.
_FLAGS = {
    "weight": ("variable_nonfinite", "nonfinite_weight"),
    "batch": ("nonfinite_batch",),
}


class Tally:
    """Counts steps: not finite, with a dropped update, with a clipped one.

    And adds up their examples and the seconds that they waited for a batch.
    """

    def __init__(self) -> None:
        self._skipped = Counter(nonfinite=0, loss_scale=0, held=0)
        self._clipped = self._rollbacks = 0
        self._sums = {"examples": 0.0, "data_wait": 0.0}
        self._last = (-1, 0.0)
        self._nonfinite: Counter[tuple[str, str]] = Counter()
        self._variables: Counter[str] = Counter()

    def add(self, schema: Schema, block: Block) -> None:
        """Counts the next rows, whose columns `schema` names."""
        if (loss := schema.column("loss")) is not None:
            self._count("loss", block.values[:, [loss]])
        for signal in self._sums:
            if (column := schema.column(signal)) is not None:
                values = block.values[:, column]
                finite = values[np.isfinite(values)]
                self._sums[signal] += float(finite.sum(dtype=np.float64))
        self._add_dropped(schema, block)
        self._add_clipped(schema, block)
        if (back := schema.column("rollback_steps")) is not None:
            self._rollbacks += int((block.values[:, back] > 0).sum())
        self._add_nonfinite(schema, block)

    def plain(self) -> dict[str, Any]:
        """Returns the counts as plain data; keyed ones as `[*labels, count]`.

        `data_wait` is in seconds; `last_nonfinite_step` is -1 and
        `last_nonfinite_time`, Unix seconds, 0 while there was none.
        """
        step, time = self._last
        return {
            "skipped_steps": dict(self._skipped),
            "clipped_steps": self._clipped,
            "rollbacks": self._rollbacks,
            "examples": int(self._sums["examples"]),
            "data_wait": self._sums["data_wait"],
            "last_nonfinite_step": step,
            "last_nonfinite_time": time,
            "nonfinite": [[*k, n] for k, n in self._nonfinite.items()],
            "variable_nonfinite": [[k, n] for k, n in self._variables.items()],
        }

    def _add_dropped(self, schema: Schema, block: Block) -> None:
        """Counts dropped updates: bad steps, loss scaling's own, held ones."""
        dropped = schema.column("update_dropped")
        norm = schema.column("gradient_norm")
        bad = schema.column("nonfinite")
        if dropped is None or norm is None or bad is None:
            return
        rows = block.values[block.values[:, dropped] > 0]
        fine = rows[:, bad] == 0
        held = np.zeros_like(fine)
        if (column := schema.column("update_held")) is not None:
            held = fine & (rows[:, column] > 0)
        scaled = fine & ~held & ~np.isfinite(rows[:, norm])
        self._skipped["held"] += int(held.sum())
        self._skipped["loss_scale"] += int(scaled.sum())
        self._skipped["nonfinite"] += int((~scaled & ~held).sum())

    def _add_clipped(self, schema: Schema, block: Block) -> None:
        """Counts steps at which the clipping of an optimizer bound."""
        columns = [
            column
            for signal in ("clip_factor", "optimizer_clip_factor")
            for column in schema.columns(signal).values()
        ]
        factors = block.values[:, columns]
        self._clipped += int((factors < 1).any(axis=1).sum())

    def _add_nonfinite(self, schema: Schema, block: Block) -> None:
        flag = schema.column("nonfinite")
        if flag is None:
            return
        bad = np.flatnonzero(block.values[:, flag])
        if not len(bad):
            return
        last = bad[-1]
        self._last = int(block.steps[last]), float(block.times[last])
        norms = schema.columns("variable_gradient_norm")
        values = block.values[bad][:, list(norms.values())]
        self._count("gradient", values)
        counts = (~np.isfinite(values)).sum(axis=0).tolist()
        for path, count in zip(norms, counts, strict=True):
            if count:
                self._variables[path] += count
        for source, signals in _FLAGS.items():
            columns = [
                column
                for signal in signals
                for column in schema.columns(signal).values()
            ]
            flagged = (block.values[bad][:, columns] > 0).any(axis=1).sum()
            self._nonfinite[source, "nan"] += int(flagged)

    def _count(self, source: str, values: NDArray[np.float32]) -> None:
        """Counts rows of `values`: `nan` if any is NaN, else `inf`."""
        nan = np.isnan(values).any(axis=1)
        inf = np.isinf(values).any(axis=1) & ~nan
        self._nonfinite[source, "nan"] += int(nan.sum())
        self._nonfinite[source, "inf"] += int(inf.sum())
