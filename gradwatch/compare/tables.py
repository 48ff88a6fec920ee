"""The recorded readings of a run, as tables of rows by step.

Of what is judged or shown only: that bounds the memory. numpy only.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.compare.rounding import kind
from gradwatch.errors import GradWatchError
from gradwatch.records import Block, Epoch, Schema
from gradwatch.signals import Slot
from gradwatch.sinks.readings import read_run

__all__ = ["TIMES", "Recorded", "Table", "read_recorded"]


TIMES = ("step_time", "data_wait", "examples_per_second")
"""Signals that say how fast a run was."""


class Table(NamedTuple):
    """The rows of one Schema: N steps, K of its slots.

    Attributes:
        slots: names the columns.
        steps: int64 `[N]`, ascending.
        values: float32 `[N, K]`.
        xray: bool `[N]`; X-ray slots of a row are measured only where true.
    """

    slots: tuple[Slot, ...]
    steps: NDArray[np.int64]
    values: NDArray[np.float32]
    xray: NDArray[np.bool_]

    def of(self, signal: str, subject: str = "") -> NDArray[np.float32] | None:
        """Returns the column of a slot, float32 `[N]`; `None` = not there."""
        slot = Slot(signal, subject)
        if slot not in self.slots:
            return None
        return self.values[:, self.slots.index(slot)]


class Recorded(NamedTuple):
    """What a run directory holds of a run's steps.

    Attributes:
        tables: one for each Schema, by their first steps.
        epochs: by their steps.
    """

    tables: list[Table]
    epochs: list[Epoch]

    def steps(self) -> NDArray[np.int64]:
        """Returns all steps."""
        return np.concatenate(
            [np.zeros(0, np.int64), *(t.steps for t in self.tables)]
        )

    def values(self, signal: str, subject: str = "") -> NDArray[np.float32]:
        """Returns a slot's values at the steps that have it."""
        columns = [table.of(signal, subject) for table in self.tables]
        known = [column for column in columns if column is not None]
        return np.concatenate([np.zeros(0, np.float32), *known])

    def at(self, signal: str, steps: NDArray[np.int64]) -> list[float | None]:
        """Returns a signal's values at some steps, `None` = not there."""
        found: dict[int, float] = {}
        for table in self.tables:
            column = table.of(signal)
            if column is not None:
                held = np.isin(table.steps, steps)
                rows = zip(table.steps[held].tolist(), column[held].tolist())
                found |= dict(rows)
        return [found.get(step) for step in steps.tolist()]


def read_recorded(run_dir: str | Path) -> Recorded:
    """Reads the readings of a run, finished or not.

    Raises:
        GradWatchError: a later gradwatch wrote them.
    """
    parts: dict[Schema, list[Table]] = {}
    chosen: dict[Schema, list[int]] = {}
    epochs: list[Epoch] = []
    try:
        for schema, record in read_run(run_dir):
            if isinstance(record, Epoch):
                epochs.append(record)
            elif record is not None and len(record):
                if schema not in chosen:
                    chosen[schema] = _chosen(schema)
                part = _part(schema, record, chosen[schema])
                parts.setdefault(schema, []).append(part)
    except ValueError as error:
        raise GradWatchError(f"{run_dir}: {error}") from None
    tables = [_joined(parts.pop(schema)) for schema in chosen]
    return Recorded(
        sorted(tables, key=lambda table: int(table.steps[0])),
        sorted(epochs, key=lambda epoch: epoch.step),
    )


def _chosen(schema: Schema) -> list[int]:
    """Returns the columns to keep: most are X-rays', which are not judged."""
    return [
        i
        for i, slot in enumerate(schema.slots)
        if kind(slot) is not None or slot.signal in TIMES
    ]


def _part(schema: Schema, block: Block, columns: list[int]) -> Table:
    slots = tuple(schema.slots[i] for i in columns)
    return Table(slots, block.steps, block.values[:, columns], block.xray)


def _joined(parts: list[Table]) -> Table:
    """Returns all rows, ascending: some that were left out come late.

    Empties `parts`, so that no row is in memory twice.
    """
    slots = parts[0].slots
    steps = np.concatenate([part.steps for part in parts])
    xray = np.concatenate([part.xray for part in parts])
    order = np.argsort(steps, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    values = np.empty((len(steps), len(slots)), np.float32)
    end = len(steps)
    while parts:
        part = parts.pop()
        values[places[end - len(part.steps) : end]] = part.values
        end -= len(part.steps)
    return Table(slots, steps[order], values, xray[order])
