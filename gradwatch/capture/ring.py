"""The ring: readings on the device, written inside the step, read outside.

gradwatch owns its variables; they are no weights of the model and land in no
checkpoint. Only tensor maths and variable assigns, so it compiles under XLA
and runs inside Keras' `steps_per_execution` loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradwatch.capture.variables import own_variable

__all__ = ["Ring"]

_RELEASED = -1
"""The latch before a bad step."""

_UNUSED = -2  # nobody watches: a bad step is kept out, and no latch is set
_BYTES = 2 * 2**20


class Ring:
    """Rows of float32 `[capacity, K]` and the counters that guard them.

    `status` is int64 `[2]`: the number of training batches seen, and the batch
    at which the latch was set (negative = not set). It is there from the
    beginning, rows are once `open` was called.

    Args:
        first_step: the batch number to go on from.

    Attributes:
        capacity: rows that it holds, 0 before `open`.
        on_cpu: whether looking at the counters is cheap.
    """

    def __init__(self, first_step: int) -> None:
        self.capacity = 0
        start = np.array([first_step, -1], np.int64)
        self._status = own_variable(start, "status")
        self.on_cpu = "CPU" in self._status.device

    def open(self, columns: int, steps_per_execution: int) -> None:
        """Makes room for rows.

        Args:
            columns: K.
            steps_per_execution: rows that one call of the train function can
                write; the ring holds at least twice as many.
        """
        self.capacity = max(
            2 * steps_per_execution, _BYTES // (4 * max(columns, 1))
        )
        rows = np.zeros([self.capacity, columns], np.float32)
        self._rows = own_variable(rows, "ring")

    def counters(self) -> Any:
        """In the graph: count and latch, int64 `[2]`."""
        return self._status.read_value()

    def write(self, row: Any, count: Any) -> None:
        """In the graph: writes row number `count` and counts it.

        Args:
            row: float32 `[K]`.
            count: int64 scalar, the batch that `row` describes.
        """
        place = tf.reshape(count % self.capacity, [1, 1])
        written = self._rows.scatter_nd_update(place, tf.expand_dims(row, 0))
        # The counter promises that the rows below it are complete. Graph mode
        # does not order assigns to different variables by itself.
        with tf.control_dependencies([written]):
            self._status.assign_add([1, 0])

    def latch(self, stops: Any) -> None:
        """In the graph, before `write`: sets the latch at this batch.

        Args:
            stops: bool scalar, whether it is to be set; where it is already, or
                is not used, it stays.
        """
        count, latched = tf.unstack(self.counters())
        stops &= tf.equal(latched, _RELEASED)
        self._status.assign(tf.stack([count, tf.where(stops, count, latched)]))

    def progress(self) -> tuple[int, int]:
        """On the host: `(count, latched)`. Waits for the device."""
        count, latched = self._status.numpy().tolist()
        return count, latched

    def rows(self, first: int, last: int) -> NDArray[np.float32]:
        """On the host: rows of the batches `first` to `last`, exclusive.

        Returns:
            float32 `[last - first, K]`. The caller read `last` from
            `progress()` before, and `last - first <= capacity`.
        """
        places = np.arange(first, last) % self.capacity
        return np.asarray(tf.gather(self._rows, places))

    def start(self, step: int) -> None:
        """On the host: the next batch is number `step`."""
        self._status[0].assign(step)

    def release_latch(self, watched: bool) -> None:
        """On the host: lets training go on.

        Args:
            watched: whether somebody will see that the latch is set again; what
                was traced into a function of the user's stays there.
        """
        self._status[1].assign(_RELEASED if watched else _UNUSED)
