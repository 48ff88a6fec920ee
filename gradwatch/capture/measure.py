"""What a step has shown of itself so far, and the reading of an update from it.

Collects what the tapes gave, how losses were scaled and what they are made of;
when an optimizer gets gradients, all this becomes one `Update`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.capture import optimizer as rule
from gradwatch.capture import replicas
from gradwatch.capture.anatomy import key, layer_path, subjects
from gradwatch.capture.attributes import Hook
from gradwatch.capture.gradients import Tapes
from gradwatch.capture.losses import Ledger
from gradwatch.capture.shares import Share, blamed, judge_all
from gradwatch.capture.updates import Update
from gradwatch.capture.verdict import HEAD, Step, dense
from gradwatch.capture.xray import Picture, Probes
from gradwatch.provenance import find_cuts, flattened
from gradwatch.records import Cut
from gradwatch.signals import Slot

__all__ = ["Measure", "draws"]

_log = logging.getLogger(__name__)

_MEASURED = "variable_gradient_norm"
_DRAWS = ("Random", "TruncatedNormal", "Multinomial")


class Measure:
    """The measurements of one step.

    Args:
        model: the `keras.Model`.
        batch: what the train step was called with.
        guarded: whether a bad step may not change the model.
        made: called when variables of the model's metrics have been made.
        probes: those of an X-ray.

    Attributes:
        known: Slot -> scalar of what is known beside the updates.
    """

    def __init__(
        self,
        model: Any,
        batch: Any,
        guarded: bool,
        made: Callable[[], None],
        probes: Probes | None,
    ) -> None:
        self._probes = probes
        self._parts: list[dict[Slot, Any]] = []
        self._optimizers: list[Any] = []
        self.known = _examples(batch)
        self.tapes = Tapes()
        self.ledger = Ledger(model, made)
        self._model = model
        self._batch = batch
        self._guarded = guarded
        self._names = subjects(model)
        self._scaled: dict[int, tuple[Any, Any, Any]] = {}

    def hooks(self) -> Iterator[Hook]:
        """Yields the instance attributes that must stand during the step."""
        yield from self.ledger.hooks()
        if self._probes is not None:
            yield from self._probes.hooks()

    def picture(self) -> Picture:
        """Returns what the X-ray has measured, at the end of the step."""
        if self._probes is None:
            return Picture()
        self._probes.after()
        self._probes.fields(self.ledger.fields)
        self._probes.examples(self.ledger.examples)
        self._probes.answers(self.ledger.compiled)
        if len(self._parts) == 1:
            parts = {
                slot.subject: value
                for slot, value in self._parts[0].items()
                if slot.signal == "loss_component"
            }
            weights = self._model.trainable_variables
            self._probes.components(parts, weights)
        return self._probes.picture

    def scaled(self, loss: Any, factor: Any, result: Any) -> None:
        """Takes that `result` is `loss` times `factor`; `None` = unscaled."""
        if factor is not None:
            self._scaled[id(result)] = loss, factor, result

    def own(self) -> list[Any]:
        """Returns the model's weights whose gradients no optimizer took."""
        return self.tapes.rest(self._model.trainable_variables)

    def cuts(
        self,
        slots: Collection[Slot],
        writes: Callable[[Sequence[Any]], Sequence[Any]],
    ) -> tuple[Cut, ...]:
        """Returns why trainable variables without a slot have no gradient.

        And why others have one that is always zero. Empty where none has, and
        where it cannot be found out.

        Args:
            slots: of the step.
            writes: returns those of variables that the step assigns itself.
        """
        measured = {s.subject for s in slots if s.signal == _MEASURED}
        missing = [
            v
            for v in self._model.trainable_variables
            if self.name(v) not in measured
        ]
        found: list[Cut] = []
        try:
            found += self._cuts(missing, writes(missing)) if missing else ()
            found += self._flat(measured)
        except Exception:
            _log.debug("No cut was found", exc_info=True)
        return tuple(found)

    def _flat(self, measured: Collection[str]) -> Iterator[Cut]:
        """Yields why variables have a gradient that is zero for any numbers."""
        targets = self.tapes.targets()
        if flattened(targets):
            weights = self._model.trainable_variables
            handles = {
                self.name(v): getattr(v, "_value", v).handle
                for v in weights
                if self.name(v) in measured
            }
            yield from find_cuts(targets, handles, self._layers(), zero=True)

    def _layers(self) -> list[str]:
        return list(map(layer_path, self._model._flatten_layers()))

    def _cuts(
        self, missing: Sequence[Any], assigned: Sequence[Any]
    ) -> Iterator[Cut]:
        layers = self._layers()
        own = set(map(id, assigned))
        left = [v for v in missing if id(v) not in own]
        rest = self.tapes.rest(left)
        if assigned:
            yield Cut("assigned", tuple(map(self.name, assigned)))
        if rest:
            yield Cut("unapplied", tuple(map(self.name, rest)))
        own |= set(map(id, rest))
        missing = [v for v in left if id(v) not in own]
        for targets, group in self.tapes.missed(missing):
            values = {self.name(v): getattr(v, "_value", v) for v in group}
            if targets:
                handles = {name: v.handle for name, v in values.items()}
                yield from find_cuts(targets, handles, layers)
            else:
                yield Cut("unasked", tuple(values))

    def update(
        self,
        optimizer: Any,
        pairs: Sequence[tuple[Any, Any]],
        state: Sequence[tuple[Any, Any, Any]],
        blocked: Any,
    ) -> Update:
        """Returns what there is to say about an update.

        Args:
            optimizer: a `keras.Optimizer`; `None` where the step assigns its
                weights itself.
            pairs: gradient, or `None` for that of the tape, and variable.
            state: variable, value at the step's start and now, of what the
                step has assigned so far.
            blocked: bool scalar, whether this step may change nothing any more.
        """
        handed, variables = zip(*pairs)
        taken = self.tapes.take(variables, handed)
        own = list(handed) if taken.changed else taken.gradients
        sums = replicas.total(taken.gradients)
        got = replicas.total(own) if taken.changed else sums
        total, scale = self._loss(taken.targets)
        shared = self.known | self._part(total)
        factor = rule.scale(optimizer) if scale is None else scale
        given = rule.Handed(own, got, factor, variables, taken.changed)
        told = rule.told(optimizer) | rule.applied(optimizer, given)
        names = list(map(self.name, variables))
        gradients = list(map(dense, sums))
        self._look(names, gradients, variables, scale)
        step = Step(
            loss=tf.reduce_sum(total),
            gradients=gradients,
            got=list(map(dense, got)) if taken.changed else [],
            scale=scale,
            weights=[getattr(v, "_value", v) for v in variables],
            state=[(before, now) for _, before, now in state],
            batch=self._batch,
            told=[_float(v) for v in (*shared.values(), *told.values())],
            squared=rule.squares(optimizer),
            skips=optimizer is not rule.inner(optimizer),
            updates=rule.updates(optimizer),
            compiled=self._model.jit_compile and not tf.executing_eagerly(),
        )
        share = Share(taken.gradients, len(shared))
        verdict = judge_all(step, share, blocked, self._guarded)
        lost = [self.name(v) for v, *_ in state]
        slots = _slots([*shared, *told], names, lost)
        return Update(self._called(optimizer), slots, verdict, got)

    def _part(self, total: Any) -> dict[Slot, Any]:
        """Takes what the loss of an update is made of."""
        self._parts.append(self.ledger.take(total))
        return self._parts[-1]

    def _look(self, *gradients: Any) -> None:
        """Takes what `Probes.before` does, in an X-ray."""
        if self._probes is not None:
            self._probes.before(*gradients)

    def named(self, variable: Any) -> bool:
        """Whether a variable is the model's."""
        return key(variable) in self._names

    def name(self, variable: Any) -> str:
        """Returns what a variable is reported under."""
        path = getattr(variable, "path", getattr(variable, "name", ""))
        return self._names.get(key(variable), path)

    def _called(self, optimizer: Any) -> str:
        """A name of its own for each optimizer of the step."""
        if optimizer not in self._optimizers:
            self._optimizers.append(optimizer)
        names = [rule.name(self._model, known) for known in self._optimizers]
        place = self._optimizers.index(optimizer)
        before = names[:place].count(names[place])
        return f"{names[place]}#{before + 1}" if before else names[place]

    def _loss(self, targets: Sequence[Any]) -> tuple[Any, Any]:
        """Returns the loss that was differentiated, and its scale or `None`."""
        scale, losses = None, []
        for target in targets:
            known = self._scaled.get(id(target), (target, None, None))
            loss, factor, _ = known
            scale = factor if factor is not None else scale
            losses.append(loss)
        if not losses:  # gradients from elsewhere
            total = self.ledger.total
            losses = [tf.zeros(()) if total is None else total]
        if len(losses) == 1:
            return losses[0], scale
        return tf.add_n([tf.reduce_sum(loss) for loss in losses]), scale


def _slots(
    told: Sequence[Slot], weights: Sequence[str], state: Sequence[str]
) -> tuple[Slot, ...]:
    """Returns what the values of an update's verdict are."""
    slots = [*map(Slot, HEAD), *told]
    slots += [Slot(_MEASURED, name) for name in weights]
    slots += [Slot("variable_nonfinite", name) for name in state]
    return (*slots, *blamed())


def _examples(batch: Any) -> dict[Slot, Any]:
    """How many there are in the batch: its first tensor's length."""
    for leaf in tf.nest.flatten(batch):
        if isinstance(leaf, tf.Tensor | np.ndarray) and len(leaf.shape):
            return {Slot("examples"): tf.shape(leaf)[0]}
    return {}


def _float(value: Any) -> Any:
    return tf.cast(value, tf.float32)


def draws(graph: Any) -> bool:
    """Whether a graph draws seeded numbers whose state is its own.

    Each function that they are traced into has a stream of its own; Keras'
    seed generators keep theirs in a variable.
    """
    for op in graph.get_operations():
        stateful = op.op_def is not None and op.op_def.is_stateful
        if stateful and op.type.startswith(_DRAWS):
            names = [n for n in ("seed", "seed2") if n in op.node_def.attr]
            if any(op.get_attr(name) for name in names):
                return True
    return False
