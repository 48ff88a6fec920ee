"""The time that a step waits for its data.

Keras' loop takes the next batch inside of the train function, in the part of it
that XLA never compiles. While that part is traced, iterators' `get_next` is
hooked, for the thread that traces it only. Read in Keras 3.15.1:
`backend/tensorflow/trainer.py` (multi_step_on_iterator); in tensorflow 2.21:
`python/data/ops/iterator_ops.py` (OwnedIterator),
`python/distribute/input_lib.py` (DistributedIteratorBase),
`core/kernels/logging_ops.cc` (Timestamp: an error under op determinism).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.data.ops.iterator_ops import OwnedIterator
from tensorflow.python.distribute.input_lib import DistributedIteratorBase
from tensorflow.python.framework.config import is_op_determinism_enabled

from gradwatch.capture.variables import own_variable

__all__ = ["Wait"]

_METHODS = tuple(
    (owner, name)
    for owner in (OwnedIterator, DistributedIteratorBase)
    for name in ("get_next", "get_next_as_optional")
)
_lock = threading.Lock()
_waits: dict[int, Wait] = {}
_originals: list[Any] = []


class Wait:
    """Seconds that the last batch was waited for.

    Attributes:
        measured: whether it is known: the loop took its batches from a
            `tf.data` iterator, as Keras' own does for every kind of data, and
            `enable_op_determinism` does not forbid the clock.
    """

    def __init__(self) -> None:
        self.measured = False
        self._seconds = own_variable(0.0, "wait")

    def seconds(self) -> Any:
        """In the graph: float32 scalar."""
        return self._seconds.read_value()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """What this thread traces meanwhile measures its waiting."""
        with _lock:
            if not _waits:
                _originals.extend(vars(owner)[name] for owner, name in _METHODS)
                for (owner, name), original in zip(_METHODS, _originals):
                    setattr(owner, name, _timed(original))
            _waits[threading.get_ident()] = self
        try:
            yield
        finally:
            with _lock:
                del _waits[threading.get_ident()]
                if not _waits:
                    for owner, name in reversed(_METHODS):
                        setattr(owner, name, _originals.pop())

    def take(self, call: Any) -> Any:
        """Returns what `call` does, and measures how long it takes."""
        if is_op_determinism_enabled():
            return call()
        self.measured = True
        began = tf.timestamp()
        with tf.control_dependencies([began]):
            batch = call()
        tensors = tf.nest.flatten(batch, expand_composites=True)
        with tf.control_dependencies([t for t in tensors if tf.is_tensor(t)]):
            seconds = tf.timestamp() - began
        self._seconds.assign(tf.cast(seconds, tf.float32))
        return batch


def _timed(original: Any) -> Any:
    @functools.wraps(original)
    def get_next(self: Any, *args: Any) -> Any:
        wait = _waits.get(threading.get_ident())
        if wait is None:
            return original(self, *args)
        return wait.take(functools.partial(original, self, *args))

    return get_next
