"""The album: what X-rays have measured, kept on the device until it is read.

Like the ring, variables of gradwatch's own, written inside the step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradwatch.capture.variables import own_variable
from gradwatch.capture.xray import Picture
from gradwatch.signals import HISTOGRAM_EDGES, Slot

__all__ = ["Album", "Pictures"]

_BYTES = 4 * 2**20
_MOST, _LEAST = 16, 2
_BINS = len(HISTOGRAM_EDGES) + 1


class Pictures(NamedTuple):
    """X-rays on the host.

    Attributes:
        steps: int64 `[X]`, the steps that were X-rays.
        scalars: float32 `[X, scalars]`.
        histograms: int64 `[X, histograms, bins]`.
    """

    steps: NDArray[np.int64]
    scalars: NDArray[np.float32]
    histograms: NDArray[np.int64]


class Album:
    """The newest X-rays.

    Args:
        scalars: the slots of an X-ray's scalars.
        histograms: those of its histograms.

    Attributes:
        capacity: X-rays that it holds.
    """

    def __init__(
        self, scalars: tuple[Slot, ...], histograms: tuple[Slot, ...]
    ) -> None:
        self.scalars = scalars
        self.histograms = histograms
        size = 4 * len(scalars) + 8 * (_BINS * len(histograms) + 1)
        self.capacity = min(_MOST, max(_LEAST, _BYTES // size))
        shape = [self.capacity, len(histograms), _BINS]
        steps = np.full(self.capacity, np.iinfo(np.int64).min)
        self._number = own_variable(np.int64(0), "xrays")
        self._steps = own_variable(steps, "xray_steps")
        none = np.zeros([self.capacity, len(scalars)], np.float32)
        self._scalars = own_variable(none, "xray_scalars")
        counts = np.zeros(shape, np.int64)
        self._histograms = own_variable(counts, "xray_histograms")

    def write(self, step: Any, picture: Picture) -> list[Any]:
        """In the graph: keeps an X-ray.

        Args:
            step: int64 scalar, the training batch.
            picture: what it has not measured is NaN, or has no counts.

        Returns:
            The operations after which it is complete.
        """
        nan, empty = tf.constant(float("nan")), tf.zeros(_BINS, tf.int64)
        scalars = [picture.scalars.get(slot, nan) for slot in self.scalars]
        bins = [picture.histograms.get(slot, empty) for slot in self.histograms]
        number = self._number.read_value()
        place = tf.reshape(number % self.capacity, [1, 1])
        scalars = tf.cast(tf.stack([nan, *scalars])[1:], tf.float32)
        counts = tf.stack([empty, *bins])[1:]
        return [
            self._scalars.scatter_nd_update(place, scalars[tf.newaxis]),
            self._histograms.scatter_nd_update(place, counts[tf.newaxis]),
            self._steps.scatter_nd_update(place, [step]),
            self._number.assign(number + 1),
        ]

    def read(self, first: int, last: int) -> Pictures:
        """On the host: X-rays of the steps `first` to `last`, exclusive."""
        steps = self._steps.numpy()
        chosen = np.flatnonzero((steps >= first) & (steps < last))
        chosen = chosen[np.argsort(steps[chosen])]
        return Pictures(
            steps[chosen],
            np.asarray(tf.gather(self._scalars, chosen)),
            np.asarray(tf.gather(self._histograms, chosen)),
        )
