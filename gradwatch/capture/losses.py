"""The loss ledger: which parts a step's loss is made of.

The parts of the total are the compiled loss of each output, what each layer
adds (`add_loss`, regularisers) and the terms that a `train_step` or
`compute_loss` marks with `component`; terms marked inside of a loss or a layer
are its parts in turn. What parts do not explain is `unexplained`. Read in Keras
3.15.1: `trainers/compile_utils.py` (CompileLoss), `trainers/trainer.py`
(compute_loss), `losses/loss.py` (Loss), `layers/layer.py` (losses),
`backend/common/name_scope.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.losses.loss import scale_loss_for_distribution

from gradwatch.capture.anatomy import layer_path
from gradwatch.capture.attributes import Hook, hooked
from gradwatch.capture.build import build_loss
from gradwatch.capture.hooks import graph_being_built
from gradwatch.capture.marks import Mark, reduced
from gradwatch.signals import Slot

__all__ = ["Ledger", "UNEXPLAINED"]

UNEXPLAINED = "unexplained"


class _Part(NamedTuple):
    """A part of a loss: scalars, `raw` before its weight or `None`."""

    value: Any
    raw: Any = None


class Ledger:
    """The parts of one step's loss, while the step is being traced.

    Args:
        model: a compiled `keras.Model`.
        made: called when variables of the model's metrics have been made.

    Attributes:
        total: what `compute_loss` has returned, `None` before.
        examples: the only compiled loss before it was reduced, `[batch, ...]`.
        compiled: component -> its compiled loss, weight, targets, predictions;
            those whose examples all weigh the same.
    """

    def __init__(self, model: Any, made: Callable[[], None]) -> None:
        self._model = model
        self._made = made
        self._graph = graph_being_built()
        self.total: Any = None
        self._given: dict[str, Any] = {}
        self.examples: Any = None
        self.compiled: dict[str, tuple[Any, Any, Any, Any]] = {}
        self._names: list[str] = []  # of the outputs that have a loss
        self._outputs: dict[str, tuple[Any, Any]] = {}
        self._exact = False  # whether the total is its known parts' sum
        self._parts: dict[str, list[_Part]] = {}
        self._added: dict[str, list[_Part]] = {}  # by layers
        self._children: dict[str, dict[str, list[_Part]]] = {}
        self._marks: list[Mark] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What `compute_loss` was called with: name -> tensors or `None`.

        Of several targets or predictions, those that a compiled loss compares
        are called by its output, `targets/box`; others have their place.
        """
        found = dict(self._given)
        for place, field in enumerate(("targets", "predictions")):
            leaves = tf.nest.flatten(found.get(field))
            leaves = [leaf for leaf in leaves if leaf is not None]
            own = {
                name: pair[place]
                for name, pair in self._outputs.items()
                if any(pair[place] is leaf for leaf in leaves)
            }
            if len(leaves) < 2 or not own:
                continue
            found.pop(field)
            found |= {f"{field}/{name}": leaf for name, leaf in own.items()}
            for i, leaf in enumerate(leaves):
                if not any(leaf is known for known in own.values()):
                    found[f"{field}/{i}"] = leaf
        return found

    def hooks(self) -> Iterator[Hook]:
        """Yields the instance attributes that must stand during the step."""
        model = self._model
        yield model, "compute_loss", self._compute_loss
        yield model, "_get_regularization_losses", self._layers
        if model._compile_loss is not None:
            yield model._compile_loss, "call", self._compiled

    def mark(self, name: str, value: Any, weight: Any) -> None:
        """Takes a term that the user's code has marked."""
        if self._marks is not None:
            self._marks.append(Mark(name, value, weight))
            return
        raw = _share(tf.reduce_mean(_float(value)))
        part = _Part(_float(weight) * raw, raw)
        layer = _calling_layer()
        if layer is None:
            self._parts.setdefault(name, []).append(part)
        else:
            path = layer_path(layer)
            self._child(path, name, part)

    def take(self, total: Any) -> dict[Slot, Any]:
        """Returns the parts of `total`, and forgets them.

        Args:
            total: float scalar, the loss that was differentiated.

        Returns:
            Slot -> float32 scalar; the parts of `total` add up to it, and the
            parts of a part to this one.
        """
        parts = self._parts | self._added
        tops = {path: _added(each) for path, each in parts.items()}
        values: dict[Slot, Any] = {}
        for parent, names in self._children.items():
            children = {f"{parent}/{n}": _added(p) for n, p in names.items()}
            if parent in parts:
                rest = _rest(tops[parent].value, children)
                children[f"{parent}/{UNEXPLAINED}"] = rest
                values |= _slots(children)
            else:  # its layer adds no loss; the total may hold it all the same
                tops |= children
                self._exact = False
        if tops and not (self._exact and total is self.total):
            tops[UNEXPLAINED] = _rest(total, tops)
        self._parts, self._added, self._children = {}, {}, {}
        return _slots(tops) | values

    def _child(self, parent: str, name: str, part: _Part) -> None:
        family = self._children.setdefault(parent, {})
        family.setdefault(name, []).append(part)

    def _here(self) -> bool:
        """Whether tensors made now can be read at the step's end."""
        return graph_being_built() is self._graph

    def _compute_loss(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(*args, **kwargs)
        if not self._here():
            return loss
        names = ("inputs", "targets", "predictions", "sample_weights")
        keys = ("x", "y", "y_pred", "sample_weight")
        given = dict(zip(keys, args)) | kwargs
        self._given = {n: given.get(k) for n, k in zip(names, keys)}
        own = getattr(original, "__func__", None)
        self.total = loss
        self._exact = own is keras.Model.compute_loss
        return loss

    def _compiled(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Instead of `CompileLoss.call`: looks at each output's loss."""
        if not self._here():
            return original(*args, **kwargs)
        compiled = self._model._compile_loss
        build_loss(self._model, original, args, kwargs)
        self._made()
        losses = compiled._flat_losses
        if not losses:  # could not be built ahead; later traces see more
            loss = original(*args, **kwargs)
            self._parts.setdefault("compile_loss", []).append(_Part(_sum(loss)))
            return loss
        several = len(losses) > 1
        self._outputs, self._names = {}, [entry.name for entry in losses]
        watched = [
            entry._replace(
                loss=self._output(
                    entry.name,
                    f"{entry.name}_loss" if several else entry.loss.name,
                    entry.loss,
                    entry.loss_weights,
                )
            )
            for entry in losses
        ]
        object.__setattr__(compiled, "_flat_losses", watched)
        try:
            return original(*args, **kwargs)
        finally:
            object.__setattr__(compiled, "_flat_losses", losses)

    def _output(
        self, name: str, path: str, loss: Any, weight: Any
    ) -> Callable[..., Any]:
        """Returns the loss of one output as a function that is watched."""

        def watched(y: Any, p: Any, sample_weight: Any = None) -> Any:
            each: list[Any] = []
            if self._names.count(name) == 1:
                self._outputs[name] = y, p

            def call(original: Any, *args: Any, **kwargs: Any) -> Any:
                each.append(original(*args, **kwargs))
                return each[-1]

            self._marks, marks = [], self._marks
            try:
                with hooked([(loss, "call", call)]):
                    value = loss(y, p, sample_weight)
                mine = self._marks
            finally:
                self._marks = marks
            self._add(path, _sum(value), weight)
            if sample_weight is None:
                self.compiled[path] = loss, weight, y, p
            alone = len(self._model._compile_loss._flat_losses) == 1
            self.examples = each[-1] if each and alone else None
            for mark in mine:
                term = reduced(mark, loss, each, p, sample_weight)
                raw = term if weight is None else term * _float(weight)
                part = _Part(_float(mark.weight) * raw, raw)
                self._child(path, mark.name, part)
            return value

        return watched

    def _add(self, path: str, raw: Any, weight: Any) -> None:
        part = _Part(raw) if weight is None else _Part(raw * weight, raw)
        self._parts.setdefault(path, []).append(part)

    def _layers(self, original: Any) -> Any:
        """Instead of `_get_regularization_losses`, asked last by `losses`."""
        found = original()
        if not self._here():
            return found
        self._added = {}  # not twice where `losses` is asked for twice
        variables = [v for v in self._model.trainable_weights if v.regularizer]
        for variable, loss in zip(variables, found, strict=True):
            path = variable.path.rpartition("/")[0] or variable.path
            self._added.setdefault(path, []).append(_Part(_share(loss)))
        for layer in self._model._flatten_layers():
            for loss in layer._get_own_losses():
                path = layer_path(layer)
                self._added.setdefault(path, []).append(_Part(_share(loss)))
        return found


def _calling_layer() -> Any:
    """The layer whose `call` is running, `None` outside of any."""
    stack = global_state.get_global_attribute("name_scope_stack") or []
    for scope in reversed(stack):
        if isinstance(scope.caller, keras.layers.Layer):
            return scope.caller
    return None


def _float(value: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(value), tf.float32)


def _sum(loss: Any) -> Any:
    """As a tape does with a target that is not scalar."""
    return tf.reduce_sum(_float(loss))


def _share(loss: Any) -> Any:
    """This replica's share of what each of them adds; all of it elsewhere."""
    return scale_loss_for_distribution(_sum(loss))


def _added(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    raws = [p.value if p.raw is None else p.raw for p in parts]
    return _Part(tf.add_n([p.value for p in parts]), tf.add_n(raws))


def _rest(total: Any, parts: dict[str, _Part]) -> _Part:
    return _Part(_sum(total) - tf.add_n([p.value for p in parts.values()]))


def _slots(parts: dict[str, _Part]) -> dict[Slot, Any]:
    values = {
        Slot("loss_component", p): part.value for p, part in parts.items()
    }
    raws = {p: part.raw for p, part in parts.items() if part.raw is not None}
    return values | {Slot("raw_loss_component", p): r for p, r in raws.items()}
