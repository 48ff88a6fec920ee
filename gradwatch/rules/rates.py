"""Rates: has the learning rate in force gone to nothing?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gradwatch.records import Record, Schema
from gradwatch.rules.windows import Windows

__all__ = ["Gone", "Rates"]

_WINDOW = 16
_NOTHING = 1e-3
_SHARE = 0.25


class Gone(NamedTuple):
    """That it has gone.

    Attributes:
        since: first step of the windows without a rate.
        most: the largest one before.
        now: the largest one since.
    """

    since: int
    most: float
    now: float


class Rates:
    """Follows the learning rate of every step.

    It has gone when all steps of the last quarter of the run, at least, had
    less than a thousandth of the largest before. Threshold: a cosine is there
    for the last 2 % of its way, so that one with restarts never counts; nor
    does a rate that has always been 0, or warms up.
    """

    def __init__(self) -> None:
        self._windows = Windows(_WINDOW)
        self._most = self._now = 0.0
        self._since: int | None = None

    def begin(self, schema: Schema) -> None:
        """Takes a new Schema; remembers the largest rate."""
        column = schema.column("learning_rate")
        self._measured = column is not None
        self._windows.begin([] if column is None else [column])

    def take(self, record: Record) -> None:
        """Takes the next record."""
        for window in self._windows.cut(record):
            if not self._measured:
                continue
            rates = window.values[:, 0].astype(float)
            highest = float(np.fmax.reduce(rates, initial=0.0))
            if highest >= _NOTHING * self._most:
                self._most = max(self._most, highest)
                self._since, self._now = None, 0.0
            else:
                since = int(window.steps[0])
                self._since = since if self._since is None else self._since
                self._now = max(self._now, highest)

    def gone(self, step: int, seen: int) -> Gone | None:
        """Returns since when there is no rate, if it has gone.

        Args:
            step: the newest that was taken.
            seen: steps of the run so far.
        """
        if self._since is None or step - self._since < _SHARE * seen:
            return None
        return Gone(self._since, self._most, self._now)
