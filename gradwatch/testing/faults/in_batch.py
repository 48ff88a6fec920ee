"""Faults that come with a batch: how batches are exchanged.

Read in Keras 3.15.1: `backend/tensorflow/trainer.py` (fit, TFEpochIterator).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from gradwatch.errors import UnsupportedError, expected
from gradwatch.testing.faults.fault import Fault

__all__ = ["InBatch"]

_NO_STRATEGY = type(tf.distribute.get_strategy())


class InBatch(Fault):
    """A fault in the batch of a step, whatever the data are.

    Keras looks up `model.train_function` at each execution. Where there is
    something to change another function stands there for one execution: it
    takes the batches out of the iterator and hands them on in one of its own.

    Attributes:
        lasts: whether the batches of all later steps have it, too.
        late: seconds by which a batch that has it comes later.
    """

    lasts = False
    late = 0.0

    def __init__(self, at_step: int) -> None:
        super().__init__(at_step)
        self._queue: deque[tuple[float, Any]] = deque()
        self._handed: Any = None
        self._checked = False

    def changed(self, batch: Any) -> Any:
        """Returns what the step gets instead of a batch."""
        return batch

    def check_data(self, spec: Any) -> None:
        """Raises a GradWatchError if it cannot be done to such batches.

        Args:
            spec: `element_spec` of the data.
        """

    def check(self, offset: int) -> None:
        """See `Fault`."""
        self._checked, self._handed = False, None
        if not isinstance(self.model.distribute_strategy, _NO_STRATEGY):
            raise UnsupportedError(
                expected(
                    "tf.distribute",
                    "no strategy",
                    type(self.model.distribute_strategy).__name__,
                    "Batches that are parted over devices cannot be changed.",
                )
            )

    def execution_begins(self, step: int) -> None:
        """See `Fault`."""
        at = self.at_step - step
        hit = 0 <= at < self.executes or (self.lasts and self.time)
        if self._checked and not hit:
            return
        found = self.model.train_function

        def once(iterator: Any) -> Any:
            self.model.train_function = found
            if not self._checked:
                self._checked = True
                self.check_data(iterator.element_spec)
            return found(self._exchanged(iterator, at) if hit else iterator)

        self.model.train_function = once

    def _exchanged(self, iterator: Any, at: int) -> Any:
        """Returns an iterator over the next batches, some of them changed.

        Args:
            iterator: Keras', of `tf.data`; if it is at its end, it is returned.
            at: where among the next batches the fault begins.
        """
        executes = self.executes
        batches = list(itertools.islice(iterator, executes))
        if not batches:
            return iterator
        for i, batch in enumerate(batches):
            hit = i == at or (i > at and self.lasts)
            if i == at:
                self.came()
            self._queue.append(
                (self.late, self.changed(batch)) if hit else (0.0, batch)
            )
        if self._handed is None:
            self._handed = _iterator(self._hand_out, iterator.element_spec)
        handed = self._handed
        if len(batches) < executes:
            self._handed = None  # it will be asked for one more, and then end
        return handed

    def _hand_out(self) -> Iterator[Any]:
        while self._queue:
            late, batch = self._queue.popleft()
            time.sleep(late)
            yield batch


def _iterator(batches: Any, spec: Any) -> Any:
    """Returns a `tf.data` iterator that takes no batch before it is needed."""
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    options.autotune.enabled = False  # nor a thread of its own
    return iter(data.with_options(options))
