"""The watched train step: what Keras traces instead of `model.train_step`.

Read in Keras 3.15.1: `backend/tensorflow/trainer.py` (train_step).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from gradwatch.capture.build import build_layers
from gradwatch.capture.ring import Ring
from gradwatch.capture.trace import Trace
from gradwatch.errors import GradWatchError, expected
from gradwatch.signals import Slot

__all__ = ["WatchedStep"]

_log = logging.getLogger(__name__)
_NOTHING_TO_TRAIN = expected(
    "model",
    "at least one trainable variable",
    "{}",
    "Set `trainable = True` on a layer and compile again.",
)


class WatchedStep:
    """A train step that measures itself and keeps bad updates out.

    Args:
        model: the `keras.Model`, compiled.
        guarded: whether a bad step is kept from changing the model.
        open_ring: called with the slots of the first trace; returns the Ring
            to write to.

    Attributes:
        late: weights that the forward pass assigns; found at the end of a
            trace, too late to be read at its start. The next trace does.
    """

    def __init__(
        self,
        model: Any,
        guarded: bool,
        open_ring: Callable[[tuple[Slot, ...]], Ring],
    ) -> None:
        self.model = model
        self.guarded = guarded
        self.late: list[Any] = []
        self._open_ring = open_ring
        self._ring: Ring | None = None
        self._slots: tuple[Slot, ...] = ()
        self._built = False
        self._blind = False

    def __call__(self, data: Any) -> Any:
        """Runs `model.train_step(data)`, watched. Keras calls this."""
        trace: Trace | None = None
        with self._blind_when_faulty():
            trace = self._begin(data)
        if self._blind or trace is None:
            return self.model.train_step(data)
        with trace.hooks():
            outputs = self.model.train_step(data)
        if not self.model.trainable_variables:
            raise GradWatchError(_NOTHING_TO_TRAIN.format(self.model.name))
        with self._blind_when_faulty():
            if not self._blind:
                trace.finish()
        return outputs

    def ring(self, slots: tuple[Slot, ...]) -> Ring:
        """Returns the ring; the first trace's slots decide its columns."""
        if self._ring is None:
            self._ring, self._slots = self._open_ring(slots), slots
        return self._ring

    def row(self, slots: tuple[Slot, ...], values: Any) -> Any:
        """Returns `values` in the order of the first trace.

        Args:
            slots: what this trace measures.
            values: float32 `[len(slots)]`.

        Returns:
            float32 `[K]`, NaN where this trace lacks a slot.
        """
        if slots == self._slots:
            return values
        places = {slot: i for i, slot in enumerate(slots)}
        order = [places.get(slot, len(slots)) for slot in self._slots]
        return tf.gather(tf.concat([values, [float("nan")]], 0), order)

    def go_blind(self, why: str) -> None:
        """Gives up measuring; training goes on as if unwatched."""
        if not self._blind:
            _log.warning("gradwatch measures nothing in this run: %s.", why)
        self._blind = True

    def _begin(self, data: Any) -> Trace:
        if not self._built:
            self._built = True
            build_layers(self.model, data)
        return Trace(self, data)

    @contextlib.contextmanager
    def _blind_when_faulty(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.go_blind(f"{type(error).__name__}: {error}")
