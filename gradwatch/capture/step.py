"""The watched train step: what Keras traces instead of `model.train_step`.

While the step is being traced (eagerly: while it runs), instance attributes
stand before `optimizer.apply`, `model.compute_loss` and
`model.compute_metrics`; afterwards the instances are as before. Read in Keras
3.15.1: `backend/tensorflow/trainer.py` (train_step), `trainers/trainer.py`
(compute_loss, compute_metrics), `optimizers/base_optimizer.py` (apply).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from gradwatch.capture.anatomy import subjects
from gradwatch.capture.build import build_layers, build_metrics
from gradwatch.capture.ring import Ring
from gradwatch.capture.state import StateAtStart, state_variables
from gradwatch.capture.verdict import HEAD, Step, judge
from gradwatch.errors import GradWatchError, expected
from gradwatch.signals import Slot

__all__ = ["WatchedStep"]

_log = logging.getLogger(__name__)
_MISSING = object()
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
        trace: _Trace | None = None
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

    def _begin(self, data: Any) -> _Trace:
        if not self._built:
            self._built = True
            build_layers(self.model, data)
        return _Trace(self, data)

    @contextlib.contextmanager
    def _blind_when_faulty(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.go_blind(f"{type(error).__name__}: {error}")


class _Trace:
    """One trace of the step (eagerly: one run of it)."""

    def __init__(self, step: WatchedStep, data: Any) -> None:
        self._step = step
        self._model = step.model
        self._state = StateAtStart([*state_variables(step.model), *step.late])
        self._data = data
        self._loss: Any = None
        self._allowed: Any = None
        self._guard: set[str] = set()
        self._write: Callable[[], None] | None = None

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Instance attributes that stand before Keras' methods meanwhile."""
        hooked = (
            (self._model, "compute_loss", self._compute_loss),
            (self._model, "compute_metrics", self._compute_metrics),
            (self._model.optimizer, "apply", self._apply),
        )
        own = [vars(owner).get(name, _MISSING) for owner, name, _ in hooked]
        # `object.__setattr__` keeps Keras' tracking out of it.
        for owner, name, hook in hooked:
            original = getattr(owner, name)
            object.__setattr__(owner, name, _before(hook, original))
        try:
            yield
        finally:
            for (owner, name, _), value in zip(hooked, own, strict=True):
                if value is _MISSING:
                    object.__delattr__(owner, name)
                else:
                    object.__setattr__(owner, name, value)

    def _compute_loss(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self._loss = original(*args, **kwargs)
        return self._loss

    def _compute_metrics(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        build_metrics(self._model, original, args, kwargs)
        # Those made just now are read at the last moment before they change.
        self._state.read(self._model.metrics_variables)
        return original(*args, **kwargs)

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
        state = [
            v
            for v in self._state.written()
            if id(v) in names and v.value.dtype.is_floating and not v.trainable
        ]
        slots = (
            *(Slot(signal) for signal in HEAD),
            *(
                Slot("variable_gradient_norm", names.get(id(v), v.path))
                for _, v in pairs
            ),
            *(Slot("variable_nonfinite", names[id(v)]) for v in state),
        )
        ring = self._step.ring(slots)
        count, latched = ring.status()
        step = Step(
            loss=tf.reduce_sum(self._loss),
            gradients=[g for g, _ in pairs],
            weights=[v.value for _, v in pairs],
            state=[(self._state[v], v.value) for v in state],
            batch=self._data,
            squared=_squares(self._model.optimizer),
        )
        verdict = judge(step, latched >= 0, self._step.guarded)
        self._allowed = verdict.allowed
        if self._step.guarded:
            stops = verdict.bad & (latched < 0)
            latched = tf.where(stops, count, latched)
        row = self._step.row(slots, verdict.values)
        self._write = lambda: ring.write(row, count, latched)

    def finish(self) -> None:
        """Puts state back if the step was bad, and writes the reading."""
        if self._write is None:
            self._step.go_blind("the train step never called `optimizer.apply`")
            return
        if self._step.guarded:
            weights = self._model.variables
            self._step.late += self._state.missed(weights, but=self._guard)
            assigned = self._state.written()
            tf.cond(
                self._allowed, lambda: None, lambda: self._put_back(assigned)
            )
        self._write()

    def _put_back(self, assigned: list[Any]) -> None:
        """Undoes assigns, but those to metrics that had counted nothing yet.

        These would show 0 for an epoch whose first step was bad, a best loss
        that never was; as the bad step left them, they show NaN.
        """
        metrics = {id(v) for v in self._model.metrics_variables}
        self._state.put_back(v for v in assigned if id(v) not in metrics)
        counts = [v for v in assigned if id(v) in metrics]
        tracker = self._model._loss_tracker
        if tracker is None or id(tracker.count) not in map(id, counts):
            self._state.put_back(counts)
            return
        tf.cond(
            self._state[tracker.count] > 0,
            lambda: self._state.put_back(counts),
            lambda: None,
        )


def _squares(optimizer: Any) -> bool:
    """Whether the optimizer squares gradients, so that 1e20 is Inf to it."""
    plain = isinstance(optimizer, keras.optimizers.SGD | keras.optimizers.Lion)
    return bool(not plain or optimizer.clipnorm or optimizer.global_clipnorm)


def _before(hook: Callable[..., Any], original: Callable[..., Any]) -> Any:
    return lambda *args, **kwargs: hook(original, *args, **kwargs)
