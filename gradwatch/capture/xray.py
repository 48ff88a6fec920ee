"""The X-ray's probes: what is too dear to be measured at every step.

They run in a trace of their own, which is one training step like any other.
Read in Keras 3.15.1: `layers/layer.py` (__call__, _flatten_layers).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import keras
import tensorflow as tf

from gradwatch.capture import replicas, statistics
from gradwatch.capture.anatomy import activation, key, layer_path, subjects
from gradwatch.capture.answers import ANSWERS, answers
from gradwatch.capture.attributes import Hook
from gradwatch.capture.hooks import graph_being_built
from gradwatch.signals import Slot

__all__ = ["Picture", "Probes", "planned"]

_COMPONENTS = 8
_SPREAD = "variable_unit_spread"
_VARIABLE = (
    "variable_gradient_max_abs",
    "variable_zero_gradient_ratio",
    "variable_weight_norm",
    "variable_update_norm",
    _SPREAD,
)


def planned(
    model: Any, slots: Sequence[Slot], fields: Mapping[str, Any]
) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
    """Returns what X-rays of a model will measure, as far as it can.

    Args:
        model: the `keras.Model`, built.
        slots: what its everyday step measures.
        fields: what its loss is computed from: name -> tensors.

    Returns:
        The slots of scalars and those of histograms.
    """
    layers = {path: activation(layer) for path, layer in _leaves(model)}
    variables = [
        s.subject for s in slots if s.signal == "variable_gradient_norm"
    ]
    parts = [s.subject for s in slots if s.signal == "loss_component"]
    scalars = [Slot(signal) for signal in statistics.EXAMPLES]
    names = subjects(model)
    flat = [names[key(v)] for v in model.variables if len(v.shape) < 2]
    scalars += [
        Slot(signal, path)
        for path in variables
        for signal in _VARIABLE
        if signal != _SPREAD or path not in flat
    ]
    for path, kind in layers.items():
        signals = statistics.unit_signals(kind)
        scalars += [Slot(signal, path) for signal in signals]
    for name, tensor in _numbers(fields):
        signals = statistics.batch_signals(tensor)
        scalars += [Slot(signal, name) for signal in signals]
    tops = [part for part in parts if "/" not in part]
    scalars += [Slot(signal, part) for part in tops for signal in ANSWERS]
    if 1 < len(parts) <= _COMPONENTS:
        pairs = [f"{a}|{b}" for a, b in combinations(parts, 2)]
        scalars += [Slot("component_gradient_norm", part) for part in parts]
        scalars += [Slot("component_gradient_cosine", pair) for pair in pairs]
    kinds = ("gradient_histogram", "weight_histogram")
    histograms = [Slot(kind, v) for v in variables for kind in kinds]
    histograms += [Slot("activation_histogram", path) for path in layers]
    return tuple(scalars), tuple(histograms)


class Picture:
    """What one X-ray has measured.

    Attributes:
        scalars: Slot -> float32 scalar tensor.
        histograms: Slot -> int64 `[bins]` tensor.
    """

    def __init__(self) -> None:
        self.scalars: dict[Slot, Any] = {}
        self.histograms: dict[Slot, Any] = {}

    def add(self, subject: str, values: Mapping[str, Any]) -> None:
        """Takes signal -> scalar, all about `subject`."""
        for signal, value in values.items():
            self.scalars[Slot(signal, subject)] = value


class Probes:
    """Looks at a step while its X-ray is being traced.

    Args:
        model: the `keras.Model`.
    """

    def __init__(self, model: Any) -> None:
        self.picture = Picture()
        self._layers = dict(_leaves(model))
        self._outputs: dict[str, list[Any]] = {}
        self._unseen: set[str] = set()
        self._weights: dict[str, tuple[Any, Any]] = {}
        self._graph = graph_being_built()

    def hooks(self) -> Iterator[Hook]:
        """Yields the instance attributes that must stand during the step."""
        for path, layer in self._layers.items():
            yield layer, "call", functools.partial(self._called, path)

    def before(
        self,
        names: Sequence[str],
        gradients: Sequence[Any],
        variables: Sequence[Any],
        scale: Any,
    ) -> None:
        """Takes gradients just before they are applied.

        Args:
            names: of the variables.
            gradients: one each, dense.
            variables: the variables.
            scale: by what the gradients are too large, or `None`.
        """
        for name, gradient, variable in zip(names, gradients, variables):
            entries = statistics.flat(gradient)
            if scale is not None:
                entries /= scale
            weight = statistics.flat(variable)
            self._weights[name] = variable, tf.identity(weight)
            found = statistics.entry_statistics(entries, weight)
            *scalars, of_gradient, of_weight = found
            if variable.shape.rank > 1:
                units = tf.reshape(weight, [-1, variable.shape[-1]])
                spread = {_SPREAD: statistics.unit_spread(units)}
                self.picture.add(name, spread)
            self.picture.add(name, dict(zip(_VARIABLE, scalars)))
            histograms = self.picture.histograms
            histograms[Slot("gradient_histogram", name)] = of_gradient
            histograms[Slot("weight_histogram", name)] = of_weight

    def after(self) -> None:
        """Looks at what the step has done to the weights, and at outputs."""
        for name, (variable, before) in self._weights.items():
            now = statistics.flat(variable)
            moved = statistics.distance(now, before)
            self.picture.add(name, {"variable_update_norm": moved})
        for path, outputs in self._outputs.items():
            units = {o.shape[-1] if o.shape.rank else None for o in outputs}
            known = len(units) == 1 and None not in units and 0 not in units
            if not known or path in self._unseen:
                continue
            rows = [tf.reshape(o, [-1, *units]) for o in outputs]
            together = tf.cast(tf.concat(rows, 0), tf.float32)
            kind = activation(self._layers[path])
            values = statistics.unit_statistics(together, kind)
            self.picture.add(path, values)
            place = Slot("activation_histogram", path)
            self.picture.histograms[place] = statistics.histogram(
                statistics.flat(together)
            )

    def fields(self, fields: Mapping[str, Any]) -> None:
        """Takes what the loss was computed from: name -> tensors or `None`."""
        for name, tensor in _numbers(fields):
            self.picture.add(name, statistics.batch_statistics(tensor))

    def examples(self, losses: Any) -> None:
        """Takes the loss of each example, `[batch, ...]`."""
        if losses is not None and losses.shape.rank:
            self.picture.add("", statistics.quantiles(losses))

    def answers(self, compiled: Mapping[str, tuple[Any, ...]]) -> None:
        """Takes component -> its loss, weight, targets and predictions."""
        for component, (loss, weight, y, p) in compiled.items():
            self.picture.add(component, answers(loss, weight, y, p))

    def components(
        self, parts: Mapping[str, Any], variables: Sequence[Any]
    ) -> None:
        """Takes the parts of the loss; looks at the gradient of each.

        Args:
            parts: path of a part -> float scalar tensor.
            variables: the weights that are trained.
        """
        if tf.executing_eagerly() or not 1 < len(parts) <= _COMPONENTS:
            return
        weights = [getattr(v, "_value", v) for v in variables]
        own = [_flat_gradients(part, weights) for part in parts.values()]
        gradients = dict(zip(parts, replicas.total(own), strict=True))
        norms = {path: tf.norm(g) for path, g in gradients.items()}
        for path, norm in norms.items():
            self.picture.add(path, {"component_gradient_norm": norm})
        for a, b in combinations(parts, 2):
            dot = tf.reduce_sum(gradients[a] * gradients[b])
            cosine = tf.math.divide_no_nan(dot, norms[a] * norms[b])
            values = {"component_gradient_cosine": cosine}
            self.picture.add(f"{a}|{b}", values)

    def _called(self, path: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Instead of a layer's `call`."""
        outputs = call(*args, **kwargs)
        for output in tf.nest.flatten(outputs)[:1]:
            if not isinstance(output, tf.Tensor):
                continue
            graph = getattr(output, "graph", None)
            if graph is None and self._graph is not None:
                continue  # a constant of the user's
            if graph is not self._graph:
                # In a recurrent layer's loop a cell's outputs exist only there;
                # one call outside of it, to learn their shapes, is not enough.
                self._unseen.add(path)
            elif output.dtype.is_floating:
                self._outputs.setdefault(path, []).append(output)
        return outputs


def _leaves(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields path and layer of those that hold no other layers."""
    for layer in model._flatten_layers(include_self=False):
        if not layer._layers and not isinstance(layer, keras.layers.InputLayer):
            yield layer_path(layer), layer


def _numbers(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields name and tensor of all fields that are numbers."""
    for name, nest in fields.items():
        leaves = [t for t in tf.nest.flatten(nest) if t is not None]
        plain = [t for t in leaves if isinstance(t, tf.Tensor)]
        tensors = [t for t in plain if _number(t)]
        for i, tensor in enumerate(tensors):
            yield (name if len(tensors) == 1 else f"{name}/{i}"), tensor


def _number(tensor: Any) -> bool:
    return bool(tensor.dtype.is_floating or tensor.dtype.is_integer) and (
        0 not in tensor.shape
    )


def _flat_gradients(part: Any, weights: Sequence[Any]) -> Any:
    """Gradient of a scalar by all weights, float32 `[n]`."""
    gradients = tf.gradients(
        part, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    entries = [statistics.flat(tf.convert_to_tensor(g)) for g in gradients]
    return tf.concat(entries, 0)
