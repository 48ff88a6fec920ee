"""One trace of the train step: what is hooked, measured and put back.

While the step is being traced (eagerly: while it runs), instance attributes
stand before `optimizer.apply`, `optimizer.scale_loss`, `model.compute_loss` and
`model.compute_metrics`; afterwards the instances are as before. Read in Keras
3.15.1: `trainers/trainer.py` (compute_loss, compute_metrics),
`optimizers/base_optimizer.py` (apply, scale_loss).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import tensorflow as tf

from gradwatch.capture import optimizer as rule
from gradwatch.capture.anatomy import subjects
from gradwatch.capture.build import build_metrics
from gradwatch.capture.ring import Ring
from gradwatch.capture.state import StateAtStart, state_variables
from gradwatch.capture.verdict import HEAD, Step, dense, judge
from gradwatch.signals import Slot

__all__ = ["Trace", "Traced"]

_MISSING = object()


class Traced(Protocol):
    """The step that is traced: what its traces have in common."""

    model: Any
    guarded: bool
    late: list[Any]

    def ring(self, slots: tuple[Slot, ...]) -> Ring:
        """The ring to write to; the first trace decides its columns."""

    def row(self, slots: tuple[Slot, ...], values: Any) -> Any:
        """`values` of `slots` in the order of the first trace."""

    def go_blind(self, why: str) -> None:
        """Measuring has failed; training goes on without it."""


class Trace:
    """One trace of the step (eagerly: one run of it)."""

    def __init__(self, step: Traced, data: Any) -> None:
        self._step = step
        self._model = step.model
        self._state = StateAtStart([*state_variables(step.model), *step.late])
        self._data = data
        self._loss: Any = None
        self._scale: Any = None
        self._allowed: Any = None
        self._guard: set[str] = set()
        self._write: Callable[[], None] | None = None

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Instance attributes that stand before Keras' methods meanwhile."""
        hooked = (
            (self._model, "compute_loss", self._compute_loss),
            (self._model, "compute_metrics", self._compute_metrics),
            (self._model.optimizer, "scale_loss", self._scale_loss),
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

    def _scale_loss(self, original: Any, loss: Any) -> Any:
        # The factor of this very trace: Keras' loss-scale optimizer takes the
        # initial one for good where it is built after this call.
        self._scale = rule.scale(self._model.optimizer)
        return original(loss)

    def _compute_metrics(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        build_metrics(self._model, original, args, kwargs)
        # Those made just now are read at the last moment before they change.
        self._state.read(self._model.metrics_variables)
        return original(*args, **kwargs)

    def _apply(
        self, original: Any, grads: Any, trainable_variables: Any = None
    ) -> Any:
        grads = list(grads)
        optimizer = self._model.optimizer
        if not optimizer.built and any(g is not None for g in grads):
            # As `apply` does; but its variables cannot be made in a branch.
            with tf.name_scope(optimizer.name):
                optimizer.build(list(trainable_variables))
        try:
            self._judge(grads, trainable_variables)
        except Exception as error:
            self._step.go_blind(f"{type(error).__name__}: {error}")
            return original(grads, trainable_variables)
        if not self._step.guarded or all(g is None for g in grads):
            return original(grads, trainable_variables)
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
        optimizer = self._model.optimizer
        gradients = [dense(g) for g, _ in pairs]
        told = rule.told(optimizer)
        step = Step(
            loss=tf.reduce_sum(self._loss),
            gradients=gradients,
            scale=self._scale,
            weights=[v.value for _, v in pairs],
            state=[(self._state[v], v.value) for v in state],
            batch=self._data,
            told=list(told.values()),
            squared=rule.squares(optimizer),
            skips=optimizer is not rule.inner(optimizer),
            updates=rule.updates(optimizer),
        )
        slots = (
            *(Slot(signal) for signal in HEAD),
            *told,
            *(
                Slot("variable_gradient_norm", names.get(id(v), v.path))
                for _, v in pairs
            ),
            *(Slot("variable_nonfinite", names[id(v)]) for v in state),
        )
        self._decide(step, slots, [v for _, v in pairs])

    def _decide(
        self, step: Step, slots: tuple[Slot, ...], variables: list[Any]
    ) -> None:
        unscaled = step.gradients
        if step.scale is not None:
            unscaled = [g / tf.cast(step.scale, g.dtype) for g in unscaled]
        applied = rule.applied_norm(self._model.optimizer, unscaled, variables)
        if applied is not None:
            slots = (*slots, Slot("applied_gradient_norm"))
        ring = self._step.ring(slots)
        count, latched = ring.status()
        verdict = judge(step, latched >= 0, self._step.guarded)
        self._allowed = verdict.allowed
        if self._step.guarded:
            stops = verdict.bad & (latched < 0)
            latched = tf.where(stops, count, latched)
        values = verdict.values
        if applied is not None:
            values = tf.concat([values, [applied]], 0)
        row = self._step.row(slots, values)
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


def _before(hook: Callable[..., Any], original: Callable[..., Any]) -> Any:
    return lambda *args, **kwargs: hook(original, *args, **kwargs)
