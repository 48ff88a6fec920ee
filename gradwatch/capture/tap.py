"""The tap: what stands in `model.train_function` while a run is watched.

It runs on the training thread, once per execution. It opens no file, changes
no log value and waits for nothing but the device's two counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from gradwatch.errors import GradWatchError, expected

__all__ = ["Tap", "Tapped"]

# What Keras' own loop ends an epoch with when the data has run out. Read in
# Keras 3.15.1, backend/tensorflow/trainer.py (function, catch_stop_iteration).
_END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)


class Tapped(Protocol):
    """Who the tap tells about executions; all on the training thread."""

    def execute(self, iterator: Any) -> Any:
        """Runs the next execution."""

    def failed(self, error: BaseException) -> None:
        """`error` is passing through the train function."""

    def orphaned(self) -> None:
        """Somebody else calls the tap: take it out if its own fit is over."""


class Tap:
    """A train function that has its executions watched.

    Args:
        original: the train function that Keras made; used when the tap is
            orphaned.
        owner: runs the watched one, and is told.

    Attributes:
        installed: `time.monotonic_ns()` at which it was put into the model.
        always: whether each call is a watched one, in a loop of the user's.
        step: Unix seconds at which the execution that runs now began, 0 if
            none does, and whether it is being traced and compiled.
    """

    def __init__(
        self,
        original: Callable[[Any], Any],
        owner: Tapped,
    ) -> None:
        self.owner = owner
        self.installed = 0
        self._original = original
        self._armed = False
        self.always = False
        self.step = (0.0, False)
        self._first = True  # the model is built in it, and the step traced

    def compiles(self) -> None:
        """Says that the execution that runs now is being traced."""
        self.step = (self.step[0], True)

    def arm(self) -> None:
        """Says that the next call belongs to a watched `fit`."""
        self._armed = True

    def clear(self, now: int) -> None:
        """Takes it out of a model that another GradWatch is to watch.

        Args:
            now: `time.monotonic_ns()` at which the callbacks of the other fit
                were made: one installed since then belongs to the same fit.

        Raises:
            GradWatchError: there are two in one fit.
        """
        if self.installed <= now:
            self.owner.orphaned()
            return
        error = GradWatchError(
            expected(
                "callbacks",
                "one GradWatch in a fit",
                "two",
                "One of them is enough: give it all rules and sinks.",
            )
        )
        self.owner.failed(error)
        raise error

    def __call__(self, iterator: Any) -> Any:
        """Runs one execution; Keras' `fit` calls this."""
        if not (self._armed or self.always):
            # A fit died outside of its step, and now an unwatched fit (or
            # `train_on_batch`) runs with what it left behind. Or a callback
            # trains on its own, in the middle of ours.
            self.owner.orphaned()
            return self._original(iterator)
        self._armed = False
        self.step = (time.time(), self._first)
        try:
            logs = self.owner.execute(iterator)
        except _END_OF_DATA:
            raise
        except BaseException as error:
            self.owner.failed(error)
            raise
        finally:
            self.step = (0.0, False)
        self._first = False
        return logs
