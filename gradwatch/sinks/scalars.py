"""Plain scalars of the event file: which slots are shown in which rows.

Slots are parted into groups that have a rate each, so that many variables do
not thin out the loss, nor everyday rows the rare X-rays.

Needs tensorboard's protocol buffers; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2

from gradwatch.records import Block, Schema
from gradwatch.signals import Slot, tag
from gradwatch.sinks.thinning import Pace

__all__ = [
    "RATE",
    "UPDATE_RATIO",
    "Scalars",
    "add_scalar",
    "scalar_groups",
]

RATE = 200
"""Scalar values a second, in total, of the rows' own times."""

UPDATE_RATIO = "variable_update_ratio"
"""Tag of `variable_update_norm` over `variable_weight_norm`, of X-ray rows."""


class Scalars:
    """A group of slots that are shown in the same rows, at a rate of its own.

    NaN is a value: what was measured is shown.

    Args:
        slots: column -> slot.
        xray: whether they are measured on X-ray rows only.
        rate: values a second.
        ratios: tag -> columns of dividend and divisor; shown where the latter
            is not 0.
    """

    def __init__(
        self,
        slots: dict[int, Slot],
        *,
        xray: bool,
        rate: float,
        ratios: dict[str, tuple[int, int]],
    ) -> None:
        self._columns = list(slots)
        self._tags = [tag(slot) for slot in slots.values()]
        self._ratios = ratios
        self._xray = xray
        self._pace = Pace(rate)

    def events(
        self,
        block: Block,
        due: NDArray[np.bool_],
        forced: NDArray[np.bool_],
        thin: int,
    ) -> Iterator[event_pb2.Event]:
        """Yields one event for each row of `block` that is shown.

        Args:
            block: the next rows.
            due: bool `[B]`, rows of the cadence; X-ray rows need not be due.
            forced: bool `[B]`, rows to show in any case.
            thin: by what the rate is divided.
        """
        measured = np.flatnonzero(block.xray if self._xray else due | forced)
        cost = (len(self._tags) + len(self._ratios)) * thin
        times = block.times[measured]
        chosen = self._pace.choose(times, forced[measured], cost)
        for row in measured[chosen]:
            step, time = int(block.steps[row]), float(block.times[row])
            event = event_pb2.Event(step=step, wall_time=time)
            values = block.values[row, self._columns].tolist()
            for name, value in zip(self._tags, values, strict=True):
                add_scalar(event, name, value)
            for name, (dividend, divisor) in self._ratios.items():
                if below := float(block.values[row, divisor]):
                    above = float(block.values[row, dividend])
                    add_scalar(event, name, above / below)
            yield event


def scalar_groups(schema: Schema) -> list[Scalars]:
    """Parts the slots: those of the run, those of its parts, X-ray slots."""
    groups: dict[str, dict[int, Slot]] = {}
    rare = schema.xray.tolist()
    for column, slot in enumerate(schema.slots):
        part = "part" if slot.subject else "run"
        key = "xray" if rare[column] else part
        groups.setdefault(key, {})[column] = slot
    return [
        Scalars(
            slots,
            xray=key == "xray",
            rate=RATE / len(groups),
            ratios=_update_ratios(schema) if key == "xray" else {},
        )
        for key, slots in groups.items()
    ]


def _update_ratios(schema: Schema) -> dict[str, tuple[int, int]]:
    """How far a step moves each variable, as a share of its own size."""
    updates = schema.columns("variable_update_norm")
    weights = schema.columns("variable_weight_norm")
    return {
        f"{UPDATE_RATIO}/{variable}": (column, weights[variable])
        for variable, column in updates.items()
        if variable in weights
    }


def add_scalar(event: event_pb2.Event, name: str, value: float) -> None:
    """Adds a plain scalar to an event."""
    event.summary.value.add(tag=name, simple_value=value)
