"""One verdict on a step of several replicas, each with a share of the batch.

Gradients are the sums that the weights are updated with, and so is the loss:
Keras divides each replica's by their number (`losses/loss.py`,
`scale_loss_for_distribution`; read in 3.15.1). What is not finite in one share
concerns all, and this share's replica is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradwatch.capture import replicas
from gradwatch.capture.verdict import (
    HEAD,
    Step,
    Verdict,
    finite_where_it_was,
    floats_finite,
    judge,
    targets,
)
from gradwatch.signals import Slot

__all__ = ["Share", "blamed", "judge_all", "skippable"]

_NAN = float("nan")
_BLAME = HEAD.index("nonfinite_batch")
_AFTER = HEAD.index("nonfinite_weight") + 1


class Share(NamedTuple):
    """What is this replica's own in a `Step`, beside its batch and state.

    Attributes:
        gradients: float tensors or `tf.IndexedSlices`.
        told: how many of the values told add up over replicas; the first ones.
    """

    gradients: Sequence[Any]
    told: int


def blamed() -> list[Slot]:
    """Returns the slots of the values that `judge_all` adds at the end."""
    count = replicas.number()
    names = map(str, range(count if count > 1 else 0))
    return [Slot("replica_nonfinite", name) for name in names]


def judge_all(step: Step, share: Share, blocked: Any, guarded: bool) -> Verdict:
    """Returns the verdict of `judge`, the same in each replica.

    Args:
        step: this replica's, but with gradients summed over all.
        share: its own part in it.
        blocked: see `judge`; in one replica is enough.
        guarded: see `judge`.

    Returns:
        Of R > 1 replicas the values have R more: 1 for each replica in whose
        share something was not finite.
    """
    if replicas.number() == 1:
        return judge(step, blocked, guarded)
    kept = [finite_where_it_was(*pair) for pair in step.state]
    alone = [tf.cast(step.loss, tf.float32), _flag(blocked)]
    alone += [*step.told[: share.told], *(_flag(~fine) for fine in kept)]
    sums = replicas.added(tf.stack(alone))
    loss, anywhere, *rest = tf.unstack(sums, len(alone))
    told, lost = rest[: share.told], rest[share.told :]
    together = step._replace(
        loss=loss,
        told=[*told, *step.told[share.told :]],
        state=[(tf.zeros(()), tf.where(n > 0, _NAN, 0.0)) for n in lost],
        batch=None,
        weights=(),
    )
    verdict = judge(together, anywhere > 0, guarded)
    return _named(verdict, step, share, tf.reduce_all(tf.stack([True, *kept])))


def skippable(verdict: Verdict, gradients: Sequence[Any]) -> list[Any]:
    """Returns what an optimizer gets that drops updates that are not finite.

    Keras' loss scaling asks the first replica only, and lets what another one
    has found into the weights; so the first one's is made NaN as well.

    Args:
        verdict: on the step.
        gradients: this replica's; `None` where there is none.
    """
    gradients = list(gradients)
    if replicas.number() == 1:
        return gradients
    dropped = verdict.values[HEAD.index("update_dropped")] > 0
    for i, gradient in enumerate(gradients):
        if isinstance(gradient, tf.Tensor):
            nan = tf.constant(_NAN, gradient.dtype)
            gradients[i] = tf.where(dropped, nan, gradient)
            break
    return gradients


def _named(verdict: Verdict, step: Step, share: Share, kept: Any) -> Verdict:
    """Adds who is to blame, and for what."""
    bad, values = verdict.bad, verdict.values
    count = replicas.number()

    def look() -> Any:
        own = floats_finite([*share.gradients, step.loss]) & kept
        batch = floats_finite(step.batch), floats_finite(targets(step.batch))
        found = (*batch, floats_finite(step.weights), own)
        return _flag(~tf.stack(found))

    doubt = bad | ~tf.math.is_finite(values[HEAD.index("gradient_norm")])
    seen = tf.cond(doubt, look, lambda: tf.zeros(4))
    who = seen[3] * tf.one_hot(replicas.own(), count)
    seen = replicas.added(tf.concat([seen[:3], who], 0))
    flags = _flag(seen > 0)
    parts = [
        values[:_BLAME],
        flags[:3] * _flag(bad),
        values[_AFTER:],
        flags[3:],
    ]
    return verdict._replace(values=tf.concat(parts, 0))


def _flag(condition: Any) -> Any:
    return tf.cast(condition, tf.float32)
