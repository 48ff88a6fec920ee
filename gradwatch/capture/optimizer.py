"""What the optimizer does with gradients: scale, clip, collect, skip.

Read in Keras 3.15.1: `optimizers/base_optimizer.py` (apply, _clip_gradients,
_backend_apply_gradients), `optimizers/loss_scale_optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradwatch.capture.verdict import dense
from gradwatch.signals import Slot

__all__ = [
    "applied",
    "inner",
    "name",
    "optimizers",
    "scale",
    "squares",
    "told",
    "updates",
]


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


def applied(
    optimizer: Any,
    gradients: Sequence[Any],
    factor: Any,
    variables: Sequence[Any],
    changed: bool,
) -> dict[Slot, Any]:
    """Returns the global norm of what the weights are updated with.

    That is after the user's own code, collecting over micro-steps and clipping.

    Args:
        optimizer: says how it collects and clips.
        gradients: G tensors or `tf.IndexedSlices` that it gets.
        factor: float32 scalar that it divides them by, or `None`.
        variables: their `keras.Variable`s.
        changed: whether they are not what the tape gave.

    Returns:
        Slot -> float32 scalar, NaN in a step that only collects; empty if it
        is that of the tape's gradients.
    """
    rule = inner(optimizer)
    if rule is None or not (
        changed or rule.gradient_accumulation_steps or _clips(rule)
    ):
        return {}
    steps = rule.gradient_accumulation_steps
    # Slices are collected as what they stand for.
    plain = map(tf.convert_to_tensor if steps else dense, gradients)
    wide = [tf.cast(g, tf.float64) for g in plain]
    if factor is not None:
        wide = [g / tf.cast(factor, tf.float64) for g in wide]
    if not steps:
        return {Slot("applied_gradient_norm"): _clipped_norm(rule, wide)}
    collected = [
        rule._accumulated_gradients[rule._get_variable_index(v)]
        for v in variables
    ]
    norm = tf.cond(
        updates(optimizer),
        lambda: _clipped_norm(
            rule,
            [
                (g + tf.cast(c, g.dtype)) / steps
                for g, c in zip(wide, collected, strict=True)
            ],
        ),
        lambda: tf.constant(float("nan")),
    )
    return {Slot("applied_gradient_norm"): norm}


def _clips(rule: Any) -> bool:
    return bool(rule.clipnorm or rule.clipvalue or rule.global_clipnorm)


def _clipped_norm(rule: Any, wide: Sequence[Any]) -> Any:
    if rule.clipvalue:
        bound = rule.clipvalue
        wide = [tf.clip_by_value(g, -bound, bound) for g in wide]
    each = tf.stack([tf.norm(g) for g in wide])
    if rule.clipnorm:
        each = tf.minimum(each, rule.clipnorm)
    whole = tf.norm(each)
    if rule.global_clipnorm:
        whole = tf.minimum(whole, rule.global_clipnorm)
    return tf.cast(whole, tf.float32)
