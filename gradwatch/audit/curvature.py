"""Whether the second derivative is right, for what differentiates twice.

A gradient penalty, a natural gradient, a meta-learner does. The product of the
Hessian with a vector is compared with differences of the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.audit.evaluation import Evaluation, evaluation, join
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.subject import Subject

__all__ = ["curvature"]

_POINTS = 6
_STEPS = {False: (1e-4, 1e-5), True: (3e-2, 1e-2)}
_RELATIVE = {False: 1e-3, True: 0.1}


def curvature(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Compares second derivatives with differences, if it is asked to."""
    if not subject.second_order:
        return
    made = evaluation(subject, subject.modes[-1])
    points = subject.sample(_POINTS, salt=80)
    vectors = join(points)
    if not np.array_equal(made.outputs(vectors), made.outputs(vectors)):
        return  # random
    single = made.single(vectors)
    random = subject.generator(81)
    one, other = (_direction(random, subject, made, vectors) for _ in range(2))
    measured, steady = _differences(made, vectors, one, other, single)
    try:
        claimed = [
            _product(subject, made, [v[k] for v in points], one[k], other[k])
            for k in range(_POINTS)
        ]
    except Exception as error:  # whatever TensorFlow or the user's code raises
        said = " ".join(str(error).split())[:200]
        yield _finding(subject, "missing", f"it cannot be computed: {said}")
        return
    scale = np.abs(measured).max(initial=0.0)
    bent = steady & (np.abs(measured) > 1e-6 * (1 + scale))
    if bent.any() and all(one is None for one in claimed):
        yield _finding(subject, "missing", "there is none, but it is not zero.")
        return
    told = np.array([0.0 if c is None else c for c in claimed])
    size = np.maximum(np.abs(told), np.abs(measured)) + 1e-6 * scale
    wrong = steady & (np.abs(told - measured) > _RELATIVE[single] * size)
    if steady.any() and wrong.sum() > 0.5 * steady.sum():
        k = int(np.argmax(np.where(wrong, np.abs(told - measured), -1)))
        yield _finding(
            subject, "wrong",
            f"along two random directions {told[k]:.6g} instead of "
            f"{measured[k]:.6g} ({wrong.sum()} of {steady.sum()} points).",
        )  # fmt: skip
    else:
        text = "second derivatives agree with differences of the gradient."
        yield Measurement("second_order", "", int(steady.sum()), text)


def _direction(
    random: np.random.Generator,
    subject: Subject,
    made: Evaluation,
    vectors: Any,
) -> Any:
    """Directions `[P, N]` in the inputs of which gradients are wanted."""
    found = np.zeros_like(vectors)
    for i in subject.trained:
        part = made.slices[i]
        found[:, part] = random.normal(size=vectors[:, part].shape)
    return found


def _differences(
    made: Evaluation, vectors: Any, one: Any, other: Any, single: bool
) -> tuple[Any, Any]:
    """Differences of the gradient `[P]`, and where two steps agree."""
    upstream = np.ones((len(vectors), made.results(vectors)))
    found = []
    for step in _STEPS[single]:
        above = made.gradients(vectors + step * other, upstream)
        below = made.gradients(vectors - step * other, upstream)
        found.append(((above - below) * one).sum(1) / (2 * step))
    with np.errstate(all="ignore"):
        size = np.abs(found).max(0)
        apart = np.abs(found[0] - found[1])
        floor = 1e-6 * (1 + np.nanmax(size, initial=0.0))
        steady = np.isfinite(size)
        steady &= apart <= 0.3 * _RELATIVE[single] * size + floor
    return found[1], steady


def _product(
    subject: Subject, made: Evaluation, point: list[Any], one: Any, other: Any
) -> float | None:
    """One direction times the Hessian times the other, as TensorFlow has it."""
    values = subject.tensors(point, made.dtype)
    trained = subject.trained
    watched = [values[i] for i in trained]

    def along(direction: Any, gradients: list[Any]) -> Any:
        parts = [
            tf.reduce_sum(
                tf.convert_to_tensor(g)
                * tf.cast(
                    tf.reshape(direction[made.slices[i]], g.shape), g.dtype
                )
            )
            for i, g in zip(trained, gradients)
            if g is not None
        ]
        return tf.add_n(parts) if parts else None

    with tf.GradientTape() as outer:
        outer.watch(watched)
        with tf.GradientTape() as inner:
            inner.watch(watched)
            outputs = subject.outputs(values, made.dtype, subject.modes[-1])
            total = tf.add_n([tf.reduce_sum(t) for t in outputs])
        slope = along(one, inner.gradient(total, watched))
    if slope is None:
        return None
    found = along(other, outer.gradient(slope, watched))
    return None if found is None else float(found)


def _finding(subject: Subject, what: str, how: str) -> AuditFinding:
    return AuditFinding(
        check=f"{what}_second_gradient",
        severity="critical",
        subject="",
        message=f"The second derivative is {what}: {how}",
        source=subject.source,
        advice=(
            "Write the backward pass in operations that have a gradient "
            "themselves, and that depend on the inputs."
        ),
    )
