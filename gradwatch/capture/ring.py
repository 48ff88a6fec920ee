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
from gradwatch.facts import SKIPS_IN_ALL

__all__ = ["Ring"]

_RELEASED = -1
"""The latch before a bad step."""

_UNUSED = -2  # nobody watches: a bad step is kept out, and no latch is set
_NEVER = -(2**40)  # the last bad step before the first
_BYTES = 2 * 2**20


class Ring:
    """Rows of float32 `[capacity, K]` and the counters that guard them.

    `status` is int64 `[5]`: the number of training batches seen, the batch at
    which the latch was set (negative = not set), the last bad batch, how many
    bad ones have come in a row, and how many in all since the latch was last
    set. It is there from the beginning, rows are once `open` was called.

    Args:
        first_step: the batch number to go on from.
        max_skips: bad batches in a row that do not set the latch yet; so do
            `SKIPS_IN_ALL` times as many in all.

    Attributes:
        capacity: rows that it holds, 0 before `open`.
        on_cpu: whether looking at the counters is cheap.
        max_skips: see above.
    """

    def __init__(self, first_step: int, max_skips: int) -> None:
        self.capacity = 0
        self.max_skips = max_skips
        start = np.array([first_step, _RELEASED, _NEVER, 0, 0], np.int64)
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
        """In the graph: `status`, int64 `[5]`; count and latch come first."""
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
            self._status.assign_add([1, 0, 0, 0, 0])

    def latch(self, bad: Any) -> Any:
        """In the graph, before `write`: sets the latch if it is time to.

        Args:
            bad: bool scalar, whether this batch is bad. Where the latch is set
                already, or is not used, nothing is counted any more.

        Returns:
            Whether this batch has set it, bool scalar.
        """
        before = self.counters()
        count, latched, last, row, total = tf.unstack(before)
        bad &= tf.equal(latched, _RELEASED)
        row = tf.where(tf.equal(count, last + 1), row, 0) + 1
        most = self.max_skips
        stops = bad & ((row > most) | (total >= most * SKIPS_IN_ALL))
        latched = tf.where(stops, count, latched)
        counts = tf.stack([row, total + 1]) * tf.cast(~stops, tf.int64)
        after = tf.concat([[count, latched, count], counts], 0)
        self._status.assign(tf.where(bad, after, before))
        return stops

    def progress(self) -> tuple[int, int]:
        """On the host: `(count, latched)`. Waits for the device."""
        count, latched, *_ = self._status.numpy().tolist()
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
