"""What the optimizer does with gradients: scale, clip, collect, skip.

Read in Keras 3.15.1: `optimizers/base_optimizer.py` (apply, _clip_gradients,
_backend_apply_gradients), `optimizers/loss_scale_optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradwatch.signals import Slot

__all__ = ["applied_norm", "inner", "scale", "squares", "told", "updates"]


def inner(optimizer: Any) -> Any:
    """Returns the optimizer that changes the weights."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scale(optimizer: Any) -> Any:
    """Returns the factor that `scale_loss` multiplies by now, or `None`."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        built = optimizer.built
        factor = optimizer.dynamic_scale if built else optimizer.initial_scale
        return tf.cast(tf.convert_to_tensor(factor), tf.float32)
    factor = optimizer.loss_scale_factor
    return None if factor is None else tf.constant(float(factor))


def squares(optimizer: Any) -> bool:
    """Whether the optimizer squares gradients, so that 1e20 is Inf to it."""
    plain = isinstance(optimizer, keras.optimizers.SGD | keras.optimizers.Lion)
    return bool(not plain or optimizer.clipnorm or optimizer.global_clipnorm)


def told(optimizer: Any) -> dict[Slot, Any]:
    """Returns what the optimizer says of itself before the update.

    Returns:
        Slot -> float32 scalar.
    """
    values = {
        Slot("learning_rate"): inner(optimizer).learning_rate,
        Slot("optimizer_step"): inner(optimizer).iterations,
    }
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
    steps = inner(optimizer).gradient_accumulation_steps
    if not steps:
        return tf.constant(True)
    # `iterations` counts updates then, this one counts micro-steps.
    count = tf.convert_to_tensor(inner(optimizer)._iterations)
    return tf.equal((count + 1) % tf.cast(steps, count.dtype), 0)


def applied_norm(
    optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]
) -> Any:
    """Returns the global norm of what the weights are updated with.

    That is after collecting over micro-steps and after clipping.

    Args:
        optimizer: says how it collects and clips.
        gradients: G dense tensors, unscaled.
        variables: their `keras.Variable`s.

    Returns:
        float32 scalar, NaN in a step that only collects; `None` if the
        gradients are neither collected nor clipped.
    """
    rule = inner(optimizer)
    steps = rule.gradient_accumulation_steps
    if not (steps or rule.clipnorm or rule.clipvalue or rule.global_clipnorm):
        return None
    if not steps:
        return _clipped_norm(rule, gradients)
    collected = [
        rule._accumulated_gradients[rule._get_variable_index(v)]
        for v in variables
    ]
    return tf.cond(
        updates(optimizer),
        lambda: _clipped_norm(
            rule,
            [
                (g + tf.cast(c, g.dtype)) / steps
                for g, c in zip(gradients, collected, strict=True)
            ],
        ),
        lambda: tf.constant(float("nan")),
    )


def _clipped_norm(rule: Any, gradients: Sequence[Any]) -> Any:
    wide = [tf.cast(g, tf.float64) for g in gradients]
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
