"""The watched train step: what Keras traces instead of `model.train_step`.

While the step is being traced (eagerly: while it runs), instance attributes
stand before `optimizer.apply` and `model.compute_loss`; afterwards the
instances are as before. Read in Keras 3.15.1: `backend/tensorflow/trainer.py`
(train_step), `trainers/trainer.py` (compute_loss, _symbolic_build),
`optimizers/base_optimizer.py` (apply).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from gradwatch.capture.anatomy import subjects
from gradwatch.capture.ring import Ring
from gradwatch.capture.state import StateAtStart, state_variables, written
from gradwatch.capture.verdict import HEAD, Step, judge
from gradwatch.errors import GradWatchError, expected
from gradwatch.signals import Slot

__all__ = ["WatchedStep"]

_log = logging.getLogger(__name__)


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
        self._open_ring = open_ring
        self._ring: Ring | None = None
        self._slots: tuple[Slot, ...] = ()
        self.late: list[Any] = []
        self._blind = False

    def __call__(self, data: Any) -> Any:
        """Runs `model.train_step(data)`, watched. Keras calls this."""
        if self._blind:
            return self.model.train_step(data)
        _build(self.model, data)
        trace = _Trace(self, data)
        with trace.hooks():
            outputs = self.model.train_step(data)
        if not self.model.trainable_variables:
            raise GradWatchError(_NOTHING_TO_TRAIN.format(self.model.name))
        if self._blind:
            return outputs
        if trace.write_row is None:
            self.go_blind("`optimizer.apply` was not called in the train step")
        else:
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
        self._blind = True
        _log.warning("gradwatch measures nothing in this run: %s.", why)


_NOTHING_TO_TRAIN = expected(
    "model",
    "at least one trainable variable",
    "{}",
    "Set `trainable = True` on a layer and compile again.",
)


class _Trace:
    """One trace of the step (eagerly: one run of it)."""

    def __init__(self, step: WatchedStep, data: Any) -> None:
        model = step.model
        self._step = step
        self._model = model
        self._state = StateAtStart([*state_variables(model), *step.late])
        self._data = data
        self._loss: Any = None
        self._allowed: Any = None
        self._guard: set[str] = set()
        self.write_row: Callable[[], None] | None = None

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Instance attributes that stand before Keras' methods meanwhile."""
        hooked = (
            (self._model, "compute_loss", self._compute_loss),
            (self._model.optimizer, "apply", self._apply),
        )
        # `object.__setattr__` keeps Keras' tracking out of it.
        for owner, name, hook in hooked:
            original = getattr(owner, name)
            object.__setattr__(owner, name, _before(hook, original))
        try:
            yield
        finally:
            for owner, name, _ in hooked:
                object.__delattr__(owner, name)

    def _compute_loss(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self._loss = original(*args, **kwargs)
        return self._loss

    def _apply(
        self, original: Any, grads: Any, trainable_variables: Any = None
    ) -> Any:
        grads = list(grads)
        try:
            self._judge(grads, trainable_variables)
        except Exception as error:
            self._step.go_blind(f"{type(error).__name__}: {error}")
            return original(grads, trainable_variables)
        if not self._step.guarded or all(g is None for g in grads):
            return original(grads, trainable_variables)
        optimizer = self._model.optimizer
        if not optimizer.built:
            # Its variables cannot be made inside a branch.
            with tf.name_scope(optimizer.name):
                optimizer.build(list(trainable_variables))
        with self._guard_operations():
            tf.cond(
                self._allowed,
                lambda: original(grads, trainable_variables),
                lambda: None,
            )
        return None

    @contextlib.contextmanager
    def _guard_operations(self) -> Iterator[None]:
        if tf.executing_eagerly():
            yield
            return
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        yield
        self._guard |= {op.name for op in graph.get_operations()[before:]}

    def _judge(self, grads: list[Any], variables: Any) -> None:
        """Measures the step and decides whether it may change the model."""
        names = subjects(self._model)
        pairs = [(g, v) for g, v in zip(grads, variables) if g is not None]
        state = self._watched_state(names)
        slots = (
            *(Slot(signal) for signal in HEAD),
            *(Slot("variable_gradient_norm", names[id(v)]) for _, v in pairs),
            *(Slot("variable_nonfinite", names[id(v)]) for v in state),
        )
        ring = self._step.ring(slots)
        count, latched = ring.status()
        verdict = judge(
            Step(
                loss=tf.reduce_sum(self._loss),
                gradients=[g for g, _ in pairs],
                state=[v.value for v in state],
                batch=self._data,
            ),
            latched >= 0,
            self._step.guarded,
        )
        self._allowed = verdict.allowed
        if self._step.guarded:
            stops = verdict.bad & (latched < 0)
            latched = tf.where(stops, count, latched)
        row = self._step.row(slots, verdict.values)
        self.write_row = lambda: ring.write(row, count, latched)

    def _watched_state(self, names: dict[int, str]) -> list[Any]:
        """Float state of the model (metrics not) assigned before `apply`."""
        return [
            v
            for v in self._state.written()
            if id(v) in names and v.value.dtype.is_floating
        ]

    def finish(self) -> None:
        """Puts state back if the step was bad, and writes the reading."""
        if self._step.guarded:
            if not tf.executing_eagerly():
                self._note_late()
            assigned = self._state.written()
            tf.cond(
                self._allowed,
                lambda: None,
                lambda: self._state.put_back(assigned),
            )
        assert self.write_row is not None
        self.write_row()

    def _note_late(self) -> None:
        """Notes weights that something else than the optimizer assigns."""
        self._step.late += [
            v
            for v in written(self._model.variables, but=self._guard)
            if v not in self._state
        ]


def _build(model: Any, data: Any) -> None:
    """Makes all variables now, so that they can be read before the step.

    A model without an `Input` layer and compiled metrics would make theirs in
    the middle of the first trace. Where Keras cannot do it ahead, they still
    do, and a bad very first step is not kept out of them.
    """
    with contextlib.suppress(Exception):
        model._symbolic_build(data_batch=data)


def _before(hook: Callable[..., Any], original: Callable[..., Any]) -> Any:
    return lambda *args, **kwargs: hook(original, *args, **kwargs)
