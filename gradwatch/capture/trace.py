"""One trace of the train step: what is hooked, measured and put back.

While the step is being traced (eagerly: while it runs) gradwatch stands before
tapes, optimizers and the model's loss; afterwards all is as before. Read in
Keras 3.15.1: `trainers/trainer.py` (compute_loss, compute_metrics),
`optimizers/base_optimizer.py` (apply, scale_loss).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import tensorflow as tf

from gradwatch.capture import optimizer as rule
from gradwatch.capture import replicas
from gradwatch.capture.album import Album
from gradwatch.capture.attributes import Hook, hooked
from gradwatch.capture.branch import apart
from gradwatch.capture.build import build_metrics
from gradwatch.capture.guard import Guard
from gradwatch.capture.hooks import (
    Listener,
    listening,
    not_measured,
    overrides,
)
from gradwatch.capture.measure import Measure
from gradwatch.capture.ring import Ring
from gradwatch.capture.shares import skippable
from gradwatch.capture.support import is_custom
from gradwatch.capture.updates import Update, outcome, reading, with_state
from gradwatch.capture.verdict import HEAD
from gradwatch.capture.wait import Wait
from gradwatch.capture.xray import Picture, Probes
from gradwatch.records import Cut
from gradwatch.signals import Slot

__all__ = ["Trace", "Traced"]

_NOTHING_SEEN = (
    "the train step takes no gradient of its weights and applies none where it "
    "can be seen (not in a `tf.function` that was traced before)"
)


class Traced(Protocol):
    """The step that is traced: what its traces have in common."""

    model: Any
    guarded: bool
    rings: bool
    late: list[Any]
    ring: Ring
    wait: Wait

    def row(
        self,
        slots: tuple[Slot, ...],
        values: Any,
        fields: Mapping[str, Any],
        cuts: Callable[[Collection[Slot]], tuple[Cut, ...]],
    ) -> Any:
        """`values` of `slots` in the order of the first trace."""

    def keep(self, wanted: Any, data: Any, step: Any) -> None:
        """Keeps the batch `data` for a black box, if `wanted`."""

    def rates(self, optimizer: Any) -> AbstractContextManager[None]:
        """The rates in force: less than computed, after a rollback."""

    def go_blind(self, why: str) -> None:
        """Measuring has failed; training goes on without it."""

    def say(self, what: str) -> None:
        """Tells the user once what cannot be measured."""

    def blind_when_faulty(self) -> AbstractContextManager[None]:
        """An exception inside means that measuring has failed."""


class Trace:
    """One trace of the step (eagerly: one run of it)."""

    def __init__(
        self, step: Traced, data: Any, album: Album | None = None
    ) -> None:
        self._step = step
        self._album = album
        self._data = data
        self._model = step.model
        self._guard = Guard(step.model, step.late)
        probes = Probes(step.model) if album else None
        self._measure = Measure(
            step.model, data, step.guarded, self._guard.read_metrics, probes
        )
        # The first replica reads and writes for all of them.
        self._first = replicas.own() == 0
        if step.wait.measured and data is not None:
            seconds = step.wait.seconds() if self._first else tf.zeros(())
            self._measure.known[Slot("data_wait")] = seconds
        # Whether it may apply more than once.
        self._several = data is None or is_custom(step.model)
        self._updates: list[Update] = []
        counters = tf.constant([0, -1], tf.int64)
        if self._first:
            counters = step.ring.counters()
        self._count, self._latched, *_ = tf.unstack(counters)

    @property
    def heard(self) -> bool:
        """Whether the step has done anything that is measured."""
        return bool(self._updates or self._measure.own())

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Stands before what the step calls meanwhile."""
        with self.attributes(), listening(self):
            yield

    def attributes(self) -> AbstractContextManager[None]:
        """Stands before the model's own methods meanwhile."""
        hooks: list[Hook] = [
            (self._model, "compute_metrics", self._compute_metrics)
        ]
        hooks += self._measure.hooks()
        for optimizer in rule.optimizers(self._model):
            hooks += overrides(optimizer, self)
        return hooked(hooks)

    def inner(self, graph: Any, what: str) -> Listener | None:
        """See `Listener`."""
        self._step.say(not_measured(what))
        return None

    def component(self, name: str, value: Any, weight: Any) -> None:
        """See `Listener`."""
        with self._step.blind_when_faulty():
            self._measure.ledger.mark(name, value, weight)

    def entered(self) -> None:
        """See `Listener`."""

    def gradient(self, call: Any, target: Any, sources: Any) -> Any:
        """See `Listener`."""
        gradients = call()
        with self._step.blind_when_faulty():
            self._measure.tapes.add(target, sources, gradients)
        return gradients

    def scale_loss(self, call: Any, optimizer: Any, loss: Any) -> Any:
        """See `Listener`."""
        # The factor of this very trace: Keras' loss-scale optimizer takes the
        # initial one for good where it is built after this call.
        factor = rule.scale(optimizer)
        scaled = call(loss)
        self._measure.scaled(loss, factor, scaled)
        return scaled

    def apply(self, call: Any, optimizer: Any, grads: Any, to: Any) -> Any:
        """See `Listener`."""
        grads = list(grads)
        to = None if to is None else list(to)
        variables = list(optimizer._trainable_variables if to is None else to)
        if not grads:
            return call(grads, to)
        pairs = [(g, v) for g, v in zip(grads, variables) if g is not None]
        if not pairs:  # Keras raises; the rules are to say why
            self._row(tuple(map(Slot, HEAD)), tf.zeros(len(HEAD)))
            return call(grads, to)
        if not optimizer.built:
            # As `apply` does; but its variables cannot be made in a branch.
            with tf.name_scope(optimizer.name):
                optimizer.build(variables)
        judged = len(self._updates)
        with self._step.blind_when_faulty():
            if self._step.guarded and self._several:
                self._guard.read_before(optimizer, variables)
            with self._step.rates(optimizer):
                self._judge(optimizer, pairs)
        if len(self._updates) == judged:
            return call(grads, to)

        def update(gradients: Any) -> Any:
            with self._step.rates(optimizer):  # maybe in another thread
                return call(gradients, to)

        return self._apply(update, optimizer, grads)

    def _apply(self, call: Any, optimizer: Any, grads: list[Any]) -> Any:
        """Makes the update that was judged last, if it may be."""
        update = self._updates[-1]
        got = iter(update.got)
        sums = [None if g is None else next(got) for g in grads]
        inner = rule.inner(optimizer)
        # XLA copies weights that the verdict's branch reads before they are
        # updated in place, unless that is done in a branch as well.
        if not (self._step.guarded or self._model.jit_compile):
            return replicas.apply(call, inner, grads, sums)
        if inner is not optimizer and self._step.guarded:
            grads = skippable(update.verdict, grads)
        with self._guard.updating():
            allowed = update.verdict.allowed
            replicas.apply_if(allowed, call, inner, grads, sums)
        return None

    def finish(self) -> None:
        """Puts state back if the step was bad, and writes the reading."""
        own = self._measure.own()
        if not self._updates and own:  # the step assigns its weights itself
            self._judge(None, [(None, v) for v in own])
        if not self._updates:
            self._step.go_blind(_NOTHING_SEEN)
            return
        allowed, bad = outcome(self._updates)
        slots, values = reading(self._updates)
        left = self._left()
        if left:
            named = {self._measure.name(v): (a, b) for v, a, b in left}
            guarded = self._step.guarded
            slots, values, fine = with_state(slots, values, named, guarded)
            allowed, bad = allowed & fine, bad | ~fine
        if self._step.guarded:
            self._guard.find_late()
            # What an update before the bad one has changed goes back as well.
            several = len(self._updates) > 1 or bool(left)
            self._guard.undo_unless(allowed, several, lambda: self._latch(bad))
        else:
            latch = apart(lambda: self._latch(bad))
            tf.cond(bad, latch, lambda: tf.constant(False))
        row = self._row(slots, values)
        picture = Picture() if self._album is None else self._picture()
        if not self._first:
            return
        kept = []
        if self._album is not None:
            kept = self._album.write(self._count, picture)
        with tf.control_dependencies(kept):
            self._step.ring.write(row, self._count)

    def _latch(self, bad: Any) -> Any:
        """Returns whether the run stops here."""
        ring, step = self._step.ring, self._count
        if self._first:
            # Without data it is a function of the user's: nobody looks while it
            # loops, and XLA may compile it.
            own = self._data is not None
            rings = own and self._step.rings
            stops, keeps = ring.latch(bad, holds=own, rings=rings)
        else:
            stops, keeps, step = ring.latched(bad)
        self._step.keep(keeps, self._data, step)
        return tf.constant(False) if ring.policy.rolls_back else stops

    def _row(self, slots: tuple[Slot, ...], values: Any) -> Any:
        """Returns the row of the step, `None` in replicas but the first."""
        if not self._first:
            return None
        measure = self._measure
        fields = measure.ledger.fields
        cuts = functools.partial(measure.cuts, writes=self._guard.writes)
        return self._step.row(slots, values, fields, cuts)

    def _picture(self) -> Picture:
        """What the X-ray has measured; a probe that fails leaves it empty."""
        try:
            return self._measure.picture()
        except Exception as error:
            self._step.say(
                f"An X-ray failed ({type(error).__name__}: {error}); "
                "everyday signals are not concerned."
            )
            return Picture()

    def _judge(self, optimizer: Any, pairs: list[tuple[Any, Any]]) -> None:
        """Measures an update and decides whether it may change the model."""
        state = self._left()
        blocked = self._latched >= 0
        for earlier in self._updates:
            blocked |= ~earlier.verdict.allowed
        update = self._measure.update(optimizer, pairs, state, blocked)
        self._updates.append(update)

    def _left(self) -> list[tuple[Any, Any, Any]]:
        """State of the model assigned since the last update."""
        known = self._measure.named
        return [found for found in self._guard.assigned() if known(found[0])]

    def _compute_metrics(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        build_metrics(self._model, original, args, kwargs)
        self._guard.read_metrics()
        return original(*args, **kwargs)
