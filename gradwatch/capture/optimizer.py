"""What the optimizer does with gradients: scale, clip, collect, skip.

Read in Keras 3.15.1: `optimizers/base_optimizer.py` (apply, _clip_gradients,
_backend_apply_gradients), `optimizers/loss_scale_optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from gradwatch.capture import replicas
from gradwatch.capture.verdict import dense
from gradwatch.signals import Slot

__all__ = [
    "Handed",
    "applied",
    "inner",
    "name",
    "optimizers",
    "scale",
    "squares",
    "told",
    "until_update",
    "updates",
]

_BINDING = 1.0 - 1e-6  # clipping that shortens by less is none


def optimizers(model: Any) -> list[Any]:
    """Returns the optimizers that the model's attributes hold."""
    kind = keras.optimizers.Optimizer
    return [v for v in vars(model).values() if isinstance(v, kind)]


def name(model: Any, optimizer: Any) -> str:
    """Returns the attribute of the model that holds it, or its own name."""
    if optimizer is None:
        return "own"
    for attribute, value in vars(model).items():
        if value is optimizer:
            return attribute.lstrip("_")
    return str(optimizer.name)


def inner(optimizer: Any) -> Any:
    """Returns the optimizer that changes the weights; `None` of `None`."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scale(optimizer: Any) -> Any:
    """Returns the factor that `scale_loss` multiplies by now, or `None`."""
    if optimizer is None:
        return None
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        built = optimizer.built
        factor = optimizer.dynamic_scale if built else optimizer.initial_scale
        return tf.cast(tf.convert_to_tensor(factor), tf.float32)
    factor = optimizer.loss_scale_factor
    return None if factor is None else tf.constant(float(factor))


def squares(optimizer: Any) -> bool:
    """Whether the optimizer squares gradients, so that 1e20 is Inf to it."""
    rule = inner(optimizer)
    if rule is None:
        return False
    plain = isinstance(rule, keras.optimizers.SGD | keras.optimizers.Lion)
    return bool(not plain or rule.clipnorm or rule.global_clipnorm)


def told(optimizer: Any) -> dict[Slot, Any]:
    """Returns what the optimizer says of itself before the update.

    Returns:
        Slot -> float32 scalar.
    """
    if optimizer is None:
        return {}
    values = {Slot("optimizer_step"): inner(optimizer).iterations}
    # Keras' MultiOptimizer has none of its own.
    rate = getattr(inner(optimizer), "learning_rate", None)
    if rate is not None:
        values = {Slot("learning_rate"): rate, **values}
    factor = scale(optimizer)
    if factor is not None:
        values[Slot("loss_scale")] = factor
    return {
        slot: tf.cast(tf.convert_to_tensor(value), tf.float32)
        for slot, value in values.items()
    }


def updates(optimizer: Any) -> Any:
    """Whether this step's `apply` changes weights, bool scalar.

    With `gradient_accumulation_steps` most of them only collect.
    """
    rule = inner(optimizer)
    steps = rule.gradient_accumulation_steps if rule is not None else None
    if not steps:
        return tf.constant(True)
    # `iterations` counts updates then, this one counts micro-steps.
    count = tf.convert_to_tensor(rule._iterations)
    return tf.equal((count + 1) % tf.cast(steps, count.dtype), 0)


def until_update(optimizer: Any, executes: int) -> int:
    """Returns the steps to the next execution whose first step is an update.

    Where gradients are collected for k steps, every k-th one is; if no
    execution begins with it, the next of those that begin least before it. 0
    without collecting. Waits for the device. Read in Keras 3.15.1,
    `_backend_apply_gradients`: `_iterations` counts steps.

    Args:
        optimizer: the model's, or `None`.
        executes: steps of an execution.
    """
    rule = inner(optimizer)
    collects = rule.gradient_accumulation_steps if rule is not None else None
    if not collects:
        return 0
    missing = collects - 1 - int(rule._iterations.numpy()) % collects
    starts = range(0, collects * executes, executes)
    return min(starts, key=lambda start: (missing - start) % collects)


class Handed(NamedTuple):
    """What an optimizer gets.

    Attributes:
        own: G tensors or `tf.IndexedSlices`, of this replica.
        sums: the same summed over all replicas.
        factor: float32 scalar that the optimizer divides by, or `None`.
        variables: their `keras.Variable`s.
        changed: whether they are not what the tape gave.
    """

    own: Sequence[Any]
    sums: Sequence[Any]
    factor: Any
    variables: Sequence[Any]
    changed: bool


def applied(optimizer: Any, handed: Handed) -> dict[Slot, Any]:
    """Returns the global norm of what the weights are updated with.

    That is after the user's own code, collecting over micro-steps and clipping;
    and by how much the clipping has shortened it.

    Args:
        optimizer: says how it collects and clips.
        handed: what it gets.

    Returns:
        Slot -> float32 scalar, NaN in a step that only collects; empty if it
        is that of the tape's gradients.
    """
    rule = inner(optimizer)
    steps = rule.gradient_accumulation_steps if rule is not None else None
    clips = rule is not None and bool(_clip(rule)[1])
    if rule is None or not (handed.changed or steps or clips):
        return {}
    if steps:
        norms = _collected(optimizer, handed)
    elif clips and replicas.number() > 1:
        norms = _clipped_shares(rule, handed)
    else:
        gradients = [_unscaled(g, handed.factor) for g in handed.sums]
        norms = _clipped(rule, gradients)
    signals = ("applied_gradient_norm", "clip_factor")
    return {Slot(signals[i]): norms[i] for i in range(1 + clips)}


def _collected(optimizer: Any, handed: Handed) -> Any:
    """Norm and clip factor of what micro-steps have collected."""
    rule = inner(optimizer)
    steps = rule.gradient_accumulation_steps
    # Slices are collected as what they stand for.
    plain = map(tf.convert_to_tensor, handed.own)
    wide = [_unscaled(g, handed.factor) for g in plain]
    before = [
        rule._accumulated_gradients[rule._get_variable_index(v)]
        for v in handed.variables
    ]
    pairs = list(zip(wide, before, strict=True))
    return tf.cond(
        updates(optimizer),
        lambda: _clipped(
            rule, [(g + tf.cast(c, g.dtype)) / steps for g, c in pairs]
        ),
        lambda: tf.fill([2], float("nan")),
    )


def _clip(rule: Any) -> tuple[str, float]:
    """Returns the option by which the optimizer clips, and its bound or 0."""
    for option in ("clipnorm", "global_clipnorm", "clipvalue"):
        bound = getattr(rule, option)
        if bound and bound > 0:
            return option, bound
    return "", 0.0


def _clipped(rule: Any, gradients: Sequence[Any]) -> Any:
    """Returns norm and clip factor of float64 gradients, float32 `[2]`."""
    option, bound = _clip(rule)
    each = tf.stack([_norm(dense(g)) for g in gradients])
    before = after = _norm(each)
    if option == "clipvalue":
        cut = [
            _entries(g, lambda v: tf.clip_by_value(v, -bound, bound))
            for g in gradients
        ]
        after = _norm(tf.stack([_norm(dense(g)) for g in cut]))
    elif option:
        # Of slices Keras takes the norm with rows of the same index apart.
        seen = tf.stack(
            [
                _norm(g.values) if isinstance(g, tf.IndexedSlices) else known
                for g, known in zip(gradients, tf.unstack(each), strict=True)
            ]
        )
        seen = _norm(seen) if option == "global_clipnorm" else seen
        after = _norm(each * tf.minimum(bound / seen, 1.0))
    return _shortened(before, after)


def _clipped_shares(rule: Any, handed: Handed) -> Any:
    """The same, where replicas clip their own gradients before the sum."""
    own = [_unscaled(g, handed.factor, g.dtype) for g in handed.own]
    clipped = replicas.total(rule._clip_gradients(own))
    sums = [_unscaled(g, handed.factor) for g in handed.sums]
    before, after = (
        _norm(tf.stack([_norm(dense(_unscaled(g, None))) for g in gradients]))
        for gradients in (sums, clipped)
    )
    return _shortened(before, after)


def _shortened(before: Any, after: Any) -> Any:
    """The second norm and what it is of the first, float32 `[2]`."""
    binds = ~(after >= before * _BINDING)
    factor = tf.where(binds, after / before, 1.0)
    return tf.cast(tf.stack([after, factor]), tf.float32)


def _unscaled(gradient: Any, factor: Any, dtype: Any = tf.float64) -> Any:
    """Returns a gradient divided by a factor, if there is one."""

    def change(values: Any) -> Any:
        wide = tf.cast(values, dtype)
        return wide if factor is None else wide / tf.cast(factor, dtype)

    return _entries(gradient, change)


def _entries(gradient: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a gradient with other entries, as Keras changes them."""
    if not isinstance(gradient, tf.IndexedSlices):
        return change(gradient)
    values = change(gradient.values)
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def _norm(tensor: Any) -> Any:
    """L2 norm in one pass; squares of float32 entries fit into float64."""
    return tf.sqrt(2.0 * tf.nn.l2_loss(tensor))
