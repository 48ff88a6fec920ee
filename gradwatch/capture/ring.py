"""The ring: readings on the device, written inside the step, read outside.

gradwatch owns its variables; they are no weights of the model and land in no
checkpoint. Only tensor maths and variable assigns, so it compiles under XLA
and runs inside Keras' `steps_per_execution` loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradwatch.capture.variables import own_variable
from gradwatch.facts import QUIET_STEPS, SKIPS_IN_ALL
from gradwatch.policy import Policy

__all__ = ["Progress", "Ring"]

_RELEASED = -1
"""The latch before a bad step."""

_UNUSED = -2  # nobody watches: a bad step is kept out, and no latch is set
_FREE, _READY = -2, -1  # nothing is held then; or is, once there is reason to
_NEVER = -(2**40)  # the last bad step before the first
_NOTHING = -1
_BYTES = 2 * 2**20


class Progress(NamedTuple):
    """Where the device stands; batch numbers.

    Attributes:
        seen: training batches so far.
        latched: the batch at which the latch was set, negative if it is not.
        kept: the bad batch that is to be looked at, negative if there is none.
        held: the bad batch after which no update was made until it is looked
            at, negative if there is none. The latch is set there as well, but
            no more than that; or later, where training has stopped meanwhile.
    """

    seen: int
    latched: int
    kept: int
    held: int = _FREE

    @property
    def stopped(self) -> bool:
        """Whether the latch says that training is to stop."""
        return self.latched >= 0 and self.latched != self.held


class Bell:
    """Rung by a step that is bad, so that nobody has to look at each.

    Attributes:
        rung: whether counters other than that of batches may have changed.
    """

    def __init__(self) -> None:
        self.rung = False

    def ring(self) -> None:
        """Called in a thread of TensorFlow."""
        self.rung = True


class Ring:
    """Rows of float32 `[capacity, K]` and the counters that guard them.

    `status` is int64 `[7]`: that of `Progress`, then the last bad batch, how
    many bad ones have come in a row, and how many in all since training was
    last stopped. It is there from the beginning, rows are once `open` was
    called.

    Args:
        first_step: the batch number to go on from.
        policy: says what sets the latch: more bad batches in a row than its
            `skips`, or more than `SKIPS_IN_ALL` times as many in all.

    Attributes:
        capacity: rows that it holds, 0 before `open`.
        on_cpu: whether a step has ended when its call returns.
        policy: see above.
        bell: what the graph rings where `latch` is told that it can.
    """

    def __init__(self, first_step: int, policy: Policy) -> None:
        self.capacity = 0
        self.policy = policy
        self.bell = Bell()
        start = [first_step, _RELEASED, _NOTHING, _FREE, _NEVER, 0, 0]
        self._status = own_variable(np.array(start, np.int64), "status")
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
        """In the graph: `status`, int64 `[7]`."""
        return self._status.read_value()

    def write(self, row: Any, count: Any) -> None:
        """In the graph: writes row number `count` and counts it.

        Args:
            row: float32 `[K]`.
            count: int64 scalar, the batch that `row` describes.
        """
        place = count % self.capacity
        # By the raw operation: the methods of a variable want lists of rows.
        written = tf.raw_ops.ResourceScatterUpdate(
            resource=self._rows.handle, indices=place, updates=row
        )
        # The counter promises that the rows below it are complete. Graph mode
        # does not order assigns to different variables by itself.
        with tf.control_dependencies([written]):
            self._status.assign_add([1, 0, 0, 0, 0, 0, 0])

    def latch(self, bad: Any, holds: bool, rings: bool) -> tuple[Any, Any]:
        """In the graph, before `write`: sets the latch if it is time to.

        Args:
            bad: bool scalar, whether this batch is bad. Where training has
                stopped, or the latch is not used, nothing is counted any more.
            holds: whether no update may follow a batch that is kept, until it
                is looked at; if there is reason to, see `release_kept`.
            rings: whether the bell can be rung: XLA calls no Python.

        Returns:
            Whether this batch stops training, and whether it is the one to be
            kept of an incident, bool scalars.
        """
        before = self.counters()
        count, latched, kept, held, last, row, total = tf.unstack(before)
        holding = (held >= 0) & tf.equal(latched, held)
        bad &= tf.equal(latched, _RELEASED) | holding
        row = tf.where(tf.equal(count, last + 1), row, 0) + 1
        most = self.policy.skips
        stops = tf.constant(False)
        if most is not None:
            stops = bad & ((row > most) | (total >= most * SKIPS_IN_ALL))
        ends = most == 0 and not self.policy.rolls_back
        begins = ends | (count - last > QUIET_STEPS)
        keeps = bad & begins & tf.equal(kept, _NOTHING)
        kept = tf.where(keeps, count, kept)
        if most and holds:
            held = tf.where(keeps & ~stops & (held >= _READY), count, held)
        latched = tf.where(stops | tf.equal(held, count), count, latched)
        counts = tf.stack([row, total + 1]) * tf.cast(~stops, tf.int64)
        after = tf.concat([[count, latched, kept, held, count], counts], 0)
        self._status.assign(tf.where(bad, after, before))
        if rings:
            with tf.device("CPU:0"):
                tf.numpy_function(self.bell.ring, [], [])
        return stops, keeps

    def latched(self, bad: Any) -> tuple[Any, Any, Any]:
        """In the graph, after `latch`: what it has returned of this batch.

        For replicas but the first, which take turns behind it; its `write` may
        come before or, where an X-ray is taken, after them.

        Args:
            bad: as there.

        Returns:
            The same, and the number of this batch if it is to be kept.
        """
        counters = tf.unstack(self.counters())
        seen, latched, kept, held, last, *_ = counters
        bad &= last >= seen - 1  # not one that was not counted any more
        stops = bad & tf.equal(latched, last) & tf.not_equal(held, last)
        return stops, bad & tf.equal(kept, last), last

    def progress(self) -> Progress:
        """On the host. Waits for the device."""
        # By the raw operation, a third of what `self._status.numpy()` costs.
        handle = self._status.handle
        status = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.int64)
        return Progress(*status.numpy().tolist()[:4])

    def release_kept(self, held: bool) -> Progress:
        """On the host: another bad batch may be kept, and updates are made.

        Args:
            held: whether they are to be held after that one, too.

        Returns:
            Where the device stood before.
        """
        at = self.progress()
        if at.held >= 0 and not at.stopped:
            self._status[1].assign(_RELEASED)
        self._status[2:4].assign([_NOTHING, _READY if held else _FREE])
        return at

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
