"""The step once more, as a graph in which every gradient knows its operation.

Nothing of the model changes: optimizers are not applied, what the step assigns
is left out when its graph is run (see `probe.py`), and it is run from copies of
the model's variables. Once this is traced the model is needed no more, so what
follows may be done in another thread while the model trains again. Read in
tensorflow
2.21: `python/ops/gradients_util.py` (_GradientsHelper) names what it makes of
an operation `<name>_grad`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from gradwatch.autopsy.copies import copied, handles
from gradwatch.autopsy.limit import Limit
from gradwatch.capture import optimizer as rule
from gradwatch.capture.anatomy import key, layer_path, subjects
from gradwatch.capture.attributes import hooked
from gradwatch.capture.hooks import Listener, listening, overrides
from gradwatch.capture.support import own_train_step

__all__ = ["Component", "Traced", "trace"]

_BACKWARD = "gradwatch_backward"
"""What the names of gradient operations begin with."""


class Component(NamedTuple):
    """A term of the loss that was marked.

    Attributes:
        name: as the user has named it.
        value: a tensor of the step's graph.
    """

    name: str
    value: Any


class Traced(NamedTuple):
    """A step's graph and what is of interest in it.

    Attributes:
        graph: the `FuncGraph`; its inputs are the batch, then what it captures.
        given: what it is run from, an eager tensor for each of its inputs.
        copies: variables, of which handles are among them.
        leaves: how many of its inputs are the batch.
        layers: paths of the model's layers.
        losses: what was differentiated.
        gradients: path of a variable -> its gradients, as the tape gave them.
        components: terms of the loss, in the order in which they were marked.
        metrics: handles of metrics' variables, those of its inputs.
    """

    graph: Any
    given: list[Any]
    copies: list[Any]
    leaves: int
    layers: list[str]
    losses: list[Any]
    gradients: dict[str, list[Any]]
    components: list[Component]
    metrics: list[Any]

    def ends(self) -> list[Any]:
        """Returns what the step is for: gradients, and state it assigns.

        No metrics: once one is NaN it stays so until it is reset.
        """
        counts = {id(handle) for handle in self.metrics}
        state = [
            op.inputs[1]
            for op in self.graph.get_operations()
            if op.type.startswith("Assign")
            and op.inputs[1].dtype.is_floating
            and id(op.inputs[0]) not in counts
        ]
        flat = [g for each in self.gradients.values() for g in each]
        values = [getattr(gradient, "values", gradient) for gradient in flat]
        return [*values, *state]


def trace(
    model: Any, batch: Any, values: Mapping[int, Any], limit: Limit
) -> Traced:
    """Traces `model.train_step` on a batch; changes nothing.

    Args:
        model: a compiled `keras.Model` whose variables exist.
        batch: what its train step is called with, a nest of tensors.
        values: see `copied`.
        limit: ends it.

    Raises:
        TimeUp: the limit is reached.
        Exception: what the model's train step raises.
    """
    step = own_train_step(model)
    seen = _Seen(subjects(model))

    def run(data: Any) -> None:
        graph: Any = tf.compat.v1.get_default_graph()
        # Within `strategy.scope()` too, one replica is all there is.
        graph._distribution_strategy_stack = []
        hooks = [
            hook
            for optimizer in rule.optimizers(model)
            for hook in overrides(optimizer, seen)
        ]
        with limit.tracing(graph), hooked(hooks), listening(seen):
            step(data)

    with _losses_kept(model):
        traced = tf.function(run, autograph=False).get_concrete_function(batch)
    flat = tf.nest.flatten(batch, expand_composites=True)
    leaves = [leaf for leaf in flat if leaf is not None]
    states, copies = _states(traced.graph, len(leaves), values)
    layers = model._flatten_layers(include_self=False)
    counts = {id(h) for v in model.metrics_variables for h in handles(v)}
    return Traced(
        traced.graph,
        [*leaves, *states],
        copies,
        len(leaves),
        list(map(layer_path, layers)),
        seen.losses,
        seen.gradients,
        seen.components,
        [t for out, t in traced.graph.captures if id(out) in counts],
    )


def _states(
    graph: Any, leaves: int, values: Mapping[int, Any]
) -> tuple[list[Any], list[Any]]:
    """What to run a graph from instead of what it captures, and its copies."""
    captured = {id(inside): out for out, inside in graph.captures}
    outer = [captured[id(t)] for t in graph.inputs[leaves:]]
    copies = [copied(tensor, values) for tensor in outer]
    states = [t if c is None else c.handle for t, c in zip(outer, copies)]
    return states, copies


@contextlib.contextmanager
def _losses_kept(model: Any) -> Iterator[None]:
    """What layers have added to the loss stays that of the last real step.

    Read in Keras 3.15.1: `layers/layer.py` (add_loss, _clear_losses).
    """
    layers = list(model._flatten_layers())
    before = [([*layer._losses], {*layer._loss_ids}) for layer in layers]
    try:
        yield
    finally:
        model._clear_losses()
        for layer, (losses, ids) in zip(layers, before):
            layer._losses.extend(losses)
            layer._loss_ids.update(ids)


class _Seen:
    """Hears what the step does; see `Listener`."""

    def __init__(self, names: dict[int, str]) -> None:
        self.losses: list[Any] = []
        self.gradients: dict[str, list[Any]] = {}
        self.components: list[Component] = []
        self._names = names

    def component(self, name: str, value: Any, weight: Any) -> None:
        """See `Listener`."""
        tensor = tf.convert_to_tensor(value)
        self.components.append(Component(name, tensor))

    def entered(self) -> None:
        """See `Listener`."""

    def gradient(self, call: Any, target: Any, sources: Any) -> Any:
        """See `Listener`."""
        values = tf.nest.map_structure(_value, sources)
        targets = tf.nest.flatten(target)
        flat = tf.gradients(targets, tf.nest.flatten(values), name=_BACKWARD)
        self.losses += targets
        for source, gradient in zip(tf.nest.flatten(values), flat):
            name = self._names.get(key(source), getattr(source, "name", ""))
            if gradient is not None:
                self.gradients.setdefault(name, []).append(gradient)
        return tf.nest.pack_sequence_as(values, flat)

    def scale_loss(self, call: Any, optimizer: Any, loss: Any) -> Any:
        """See `Listener`."""
        return call(loss)

    def apply(self, call: Any, optimizer: Any, grads: Any, to: Any) -> Any:
        """See `Listener`; the model is to stay as it is."""

    def inner(self, graph: Any, what: str) -> Listener | None:
        """See `Listener`."""
        return None


def _value(source: Any) -> Any:
    return getattr(source, "_value", source)
