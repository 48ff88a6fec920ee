"""Histograms of X-ray rows, as TensorBoard's histogram page shows them.

Counts on `HISTOGRAM_EDGES` become tensors `[k, 3]` of left edge, right edge and
count, without the empty bins at both ends, so that the axis is that of the
values, and with empty bins in between as one. Gradients spread over many
decades, so their axis is log10 of the magnitude.

Needs tensorboard's protocol buffers; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, types_pb2
from tensorboard.plugins.histogram import metadata as plugin

from gradwatch.records import Block
from gradwatch.signals import HISTOGRAM_EDGES, SIGNALS, Slot, tag
from gradwatch.sinks.thinning import stride

__all__ = ["Histograms", "triples"]

_LOGARITHMIC = "gradient_histogram"
_AXIS = "The axis is log10 of the magnitude; zeros are left of -20."

# The open bins are drawn half a decade wide, like their neighbours.
_END = np.float32(10**4.5)
_VALUES = np.array([-_END, *HISTOGRAM_EDGES, _END])
_DECADES = np.arange(-41, 10, dtype=np.float32) / 2
_ZERO = len(HISTOGRAM_EDGES) // 2


def triples(slot: Slot, counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns a histogram as TensorBoard keeps it.

    Args:
        slot: says on which axis it is shown.
        counts: int64 `[99]`, numbers of entries between `HISTOGRAM_EDGES`.

    Returns:
        float32 `[k, 3]`, left edge, right edge and count (exact up to
        16,777,216) of each bin from the first to the last that is not empty,
        empty neighbours as one; k = 0 where nothing was counted. The axis of a
        gradient is log10 of the magnitude, both signs in one, with zeros from
        -20.5 to -20.
    """
    edges = _VALUES
    if slot.signal == _LOGARITHMIC:
        edges = _DECADES
        sizes = counts[_ZERO + 1 :] + counts[_ZERO - 1 :: -1]
        counts = np.concatenate([counts[[_ZERO]], sizes])
    used = np.flatnonzero(counts)
    if not len(used):
        return np.zeros((0, 3), np.float32)
    bounds = np.union1d(used, used + 1)
    sizes = np.add.reduceat(counts, bounds[:-1])
    columns = edges[bounds[:-1]], edges[bounds[1:]], sizes
    return np.stack(columns, axis=1).astype(np.float32)


class Histograms:
    """Turns the histograms of X-ray rows into events, within a share of bytes.

    The rows shown thin out like the packed readings: one in two, in four and so
    on, whenever a quarter of what remained of the share has been used.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._bytes = 0
        self._described: set[str] = set()

    def events(self, block: Block, share: int) -> Iterator[event_pb2.Event]:
        """Yields one event for each X-ray row of `block` that is shown.

        Args:
            block: the next rows.
            share: bytes that all events of the run may have.
        """
        for number, row in enumerate(np.flatnonzero(block.xray)):
            self._rows += 1
            if (self._rows - 1) % stride(self._bytes, share):
                continue
            step, time = int(block.steps[row]), float(block.times[row])
            event = event_pb2.Event(step=step, wall_time=time)
            for slot, counts in block.histograms.items():
                self._add(event, slot, counts[number])
            if event.summary.value:
                self._bytes += event.ByteSize()
                yield event

    def _add(
        self, event: event_pb2.Event, slot: Slot, counts: NDArray[np.int64]
    ) -> None:
        bins = triples(slot, counts)
        if not len(bins):  # no entry is finite
            return
        name = tag(slot)
        value = event.summary.value.add(tag=name)
        meta = plugin.create_summary_metadata(None, self._description(slot))
        value.metadata.CopyFrom(meta)
        value.tensor.dtype = types_pb2.DT_FLOAT
        for size in bins.shape:
            value.tensor.tensor_shape.dim.add(size=size)
        value.tensor.tensor_content = bins.astype("<f4").tobytes()

    def _description(self, slot: Slot) -> str:
        """Returns what it shows, once a tag: TensorBoard keeps the first."""
        if tag(slot) in self._described:
            return ""
        self._described.add(tag(slot))
        axis = f" {_AXIS}" if slot.signal == _LOGARITHMIC else ""
        return SIGNALS[slot.signal].meaning + axis
