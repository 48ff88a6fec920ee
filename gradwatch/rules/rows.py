"""Rows by name: what a rule asks of one step, and the rows that are X-rays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Block, Record, Schema
from gradwatch.signals import Slot

__all__ = ["Columns", "Read", "Row", "xrays"]


class Row(NamedTuple):
    """What one step measured.

    Attributes:
        step: its number.
        values: float32 `[K]`, columns as in the Schema.
    """

    step: int
    values: NDArray[np.float32]


Read = Callable[[Row], NDArray[np.float64]]
"""Reads a signal of several subjects: float64, one a subject."""


def xrays(record: Record) -> Iterator[Row]:
    """Yields the rows of a record that are X-rays, in order."""
    if isinstance(record, Block):
        for row in np.flatnonzero(record.xray):
            yield Row(int(record.steps[row]), record.values[row])


class Columns:
    """The columns of a Schema by the names of what they hold.

    Args:
        schema: the rows'.
    """

    def __init__(self, schema: Schema) -> None:
        self._places = {slot: i for i, slot in enumerate(schema.slots)}
        subjects: dict[str, dict[str, int]] = {}
        for slot, place in self._places.items():
            subjects.setdefault(slot.signal, {})[slot.subject] = place
        self._subjects = {
            signal: (list(places), np.array(list(places.values())))
            for signal, places in subjects.items()
        }

    def __contains__(self, signal: str) -> bool:
        """Whether a signal is measured, on any subject."""
        return signal in self._subjects

    def get(self, row: Row, signal: str, subject: str = "") -> float:
        """Returns a value; NaN if it is not measured."""
        place = self._places.get(Slot(signal, subject))
        return math.nan if place is None else float(row.values[place])

    def all(self, row: Row, signal: str) -> dict[str, float]:
        """Returns subject -> value of a signal, in the slots' order."""
        if signal not in self._subjects:
            return {}
        subjects, places = self._subjects[signal]
        return dict(zip(subjects, row.values[places].tolist()))

    def subjects(self, signal: str) -> list[str]:
        """Returns what a signal is measured on, in the slots' order."""
        return list(self._subjects[signal][0]) if signal in self else []

    def reader(self, signal: str, subjects: Sequence[str]) -> Read:
        """Returns what reads a signal of these subjects, again and again.

        Its numbers are in their order; NaN where one is not measured.
        """
        slots = (Slot(signal, subject) for subject in subjects)
        places = np.array([self._places.get(slot, -1) for slot in slots], int)
        unknown = places < 0

        def read(row: Row) -> NDArray[np.float64]:
            values: NDArray[np.float64] = row.values[places].astype(float)
            values[unknown] = np.nan
            return values

        return read
