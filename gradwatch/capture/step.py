"""The watched train step: what Keras traces instead of `model.train_step`.

Read in Keras 3.15.1: `backend/tensorflow/trainer.py` (train_step).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.mirrored_run import _RequestedStop

from gradwatch.capture import replicas
from gradwatch.capture.album import Album
from gradwatch.capture.box import Box
from gradwatch.capture.build import build_layers
from gradwatch.capture.hooks import graph_being_built
from gradwatch.capture.measure import draws
from gradwatch.capture.ring import Ring
from gradwatch.capture.rollback import Rollback
from gradwatch.capture.support import own_train_step
from gradwatch.capture.trace import Trace
from gradwatch.capture.variables import own_variable
from gradwatch.capture.wait import Wait
from gradwatch.errors import GradWatchError, expected
from gradwatch.records import Cut
from gradwatch.signals import Slot

__all__ = ["WatchedStep", "executes"]

_log = logging.getLogger(__name__)
_NOTHING_TO_TRAIN = expected(
    "model",
    "at least one trainable variable",
    "{}",
    "Set `trainable = True` on a layer and compile again.",
)


def executes(model: Any) -> int:
    """Returns the steps of one execution; `"auto"` stays a string in Keras."""
    steps = model.steps_per_execution
    return steps if isinstance(steps, int) else 1


class WatchedStep:
    """A train step that measures itself and keeps bad updates out.

    Args:
        model: the `keras.Model`, compiled.
        ring: takes the readings; its policy says what a bad step means.
        steps_per_execution: how many of them one execution runs.
        opened: called with the slots of the first trace, and with the fields
            that its loss was computed from; opens the ring.

    Attributes:
        guarded: whether a bad step is kept from changing the model.
        rings: whether a bad step of an execution rings, see `Ring.latch`; with
            several steps each, looking costs little.
        late: weights that the forward pass assigns; found at the end of a
            trace, too late to be read at its start. The next trace does.
        wait: how long the step has waited for its batch.
        album: takes X-rays, `None` where there are none.
        box: takes the batch of a bad step, `None` where it is not wanted.
        rollback: what puts the model back, `None` where nothing does.
        cuts: why variables have no gradient, as the first trace tells.
        traced: called at the begin of each trace.
    """

    def __init__(
        self,
        model: Any,
        ring: Ring,
        steps_per_execution: int,
        opened: Callable[[tuple[Slot, ...], Mapping[str, Any]], None],
    ) -> None:
        self.model = model
        self.guarded = ring.policy.skips is not None
        self.ring = ring
        self.wait = Wait()
        self.late: list[Any] = []
        self.album: Album | None = None
        self.box: Box | None = None
        self.rollback: Rollback | None = None
        if ring.policy.rolls_back:
            self.rollback = Rollback(
                model, ring.policy.rollback_factor, ring.policy.snapshots
            )
        self.cuts: tuple[Cut, ...] = ()
        self.traced: Callable[[], None] = lambda: None
        self._opened = opened
        self._slots: tuple[Slot, ...] = ()
        self._said: set[str] = set()
        self._built = False
        self._blind = False
        self._several = steps_per_execution > 1
        graph = not (model.jit_compile or model.run_eagerly)
        self.rings = graph and not self._several and self.rollback is None
        self._armed = own_variable(False, "armed")

    def __call__(self, data: Any) -> dict[str, Any]:
        """Runs `model.train_step(data)`, watched. Keras calls this."""
        return self._run(data, None)

    def xray(self, data: Any) -> dict[str, Any]:
        """Does the same and takes an X-ray; Keras calls this.

        In an execution of several steps only the first one does.
        """
        if not self._several:
            return self._run(data, self.album)

        def first() -> Any:
            self._armed.assign(False)
            return self._run(data, self.album)

        armed = self._armed.read_value()
        return tf.cond(armed, first, lambda: self._run(data, None))

    def arm(self) -> None:
        """On the host: the next step of `xray` takes one."""
        if self._several:
            self._armed.assign(True)

    def _run(self, data: Any, album: Album | None) -> Any:
        train_step = own_train_step(self.model)
        if not tf.executing_eagerly():
            self.traced()
        trace: Trace | None = None
        with self.blind_when_faulty():
            trace = self._begin(data, album)
        if self._blind or trace is None:
            return train_step(data)
        with trace.hooks():
            outputs = train_step(data)
        if not self.model.trainable_variables:
            raise GradWatchError(_NOTHING_TO_TRAIN.format(self.model.name))
        with self.blind_when_faulty():
            if not self._blind:
                trace.finish()
        return outputs

    def row(
        self,
        slots: tuple[Slot, ...],
        values: Any,
        fields: Mapping[str, Any],
        cuts: Callable[[Collection[Slot]], tuple[Cut, ...]],
    ) -> Any:
        """Returns `values` in the order of the first trace.

        Args:
            slots: what this trace measures; the first one's open the ring.
            values: float32 `[len(slots)]`.
            fields: what the loss was computed from: name -> tensors.
            cuts: tells why variables have no gradient, from the slots.

        Returns:
            float32 `[K]`, NaN where this trace lacks a slot.
        """
        if not self._slots:
            self._slots = slots
            self.cuts = cuts(slots)
            self._opened(slots, fields)
        if slots == self._slots:
            return values
        places = {slot: i for i, slot in enumerate(slots)}
        order = [places.get(slot, len(slots)) for slot in self._slots]
        return tf.gather(tf.concat([values, [float("nan")]], 0), order)

    def keep(self, wanted: Any, data: Any, step: Any) -> None:
        """In the graph: keeps a batch; one that fails is not kept."""
        if self.box is None or data is None:
            return
        try:
            self.box.keep_if(wanted, replicas.own(), data, step)
        except Exception as error:
            self.say(
                f"The batch of a bad step cannot be kept "
                f"({type(error).__name__}: {error})."
            )

    def rates(self, optimizer: Any) -> AbstractContextManager[None]:
        """In the graph: the rates in force, see `Rates.scaled`."""
        if self.rollback is None:
            return contextlib.nullcontext()
        return self.rollback.rates.scaled(optimizer)

    def takes_xrays(self) -> bool:
        """Whether an X-ray is a step like any other, called in a trace."""
        graph = graph_being_built()
        if graph is not None and draws(graph):
            self.say(
                "The step draws numbers with `tf.random` and a seed: their "
                "stream would be another one in an X-ray, so none are taken. "
                "`keras.random` with a `SeedGenerator` has no such limit."
            )
            return False
        if self._several and replicas.mirrored():
            self.say(
                "Under `MirroredStrategy` X-rays need `steps_per_execution=1`, "
                "so none are taken."
            )
            return False
        return True

    def say(self, what: str) -> None:
        """Tells the user once what cannot be measured."""
        if what not in self._said:
            self._said.add(what)
            _log.warning("gradwatch: %s", what)

    def go_blind(self, why: str) -> None:
        """Gives up measuring; training goes on as if unwatched."""
        if not self._blind:
            _log.warning("gradwatch measures nothing in this run: %s.", why)
        self._blind = True

    @contextlib.contextmanager
    def blind_when_faulty(self) -> Iterator[None]:
        """An exception inside means that measuring has failed."""
        try:
            yield
        except _RequestedStop:  # another replica has failed
            raise
        except Exception as error:
            self.go_blind(f"{type(error).__name__}: {error}")

    def _begin(self, data: Any, album: Album | None) -> Trace:
        if not self._built:
            build_layers(self.model, data)
            self._built = True
        return Trace(self, data, album)
