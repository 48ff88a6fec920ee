"""Terms of a loss that `gradwatch.component` marks: who pulls how hard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.audit.evaluation import evaluation
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.subject import Subject
from gradwatch.components import LISTENERS

__all__ = ["terms"]

_POINTS = 8
_TERMS, _FAINT = 100.0, 1000.0
"""The first is that of the rule `dominant_component`, for terms of which the
user has made one heavy; the other that of a penalty that is next to none."""

_LIGHT = 0.1


class _Term(NamedTuple):
    """One term: its weight, and what it comes to (root mean squares)."""

    name: str
    weight: float
    value: float
    gradient: float


def terms(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Says how large each term is, and its gradient, at random points."""
    if subject.kind not in ("loss", "model", "function"):
        return
    points = subject.sample(_POINTS, salt=70)
    looks = []
    for k in range(_POINTS):
        seen = _seen(subject, [value[k] for value in points])
        if not seen:
            return
        looks.append(seen)
    found = [
        _folded(name, [look[name] for look in looks])
        for name in looks[0]
        if all(name in look for look in looks)
    ]
    largest = max((one.gradient for one in found), default=0.0)
    for one in found:
        share = one.gradient / largest if largest else 0.0
        yield Measurement(
            "term", one.name, one.gradient,
            f"gradient norm, {share:.2g} of the largest; value "
            f"{one.value:.4g}, weight {one.weight:.4g} (both in it).",
        )  # fmt: skip
    if len(found) > 1 and largest:
        yield from _judged(subject, found)


def _seen(
    subject: Subject, point: list[Any]
) -> dict[str, tuple[float, float, float]]:
    """Weight, value and gradient norm of each term, at one point."""
    dtype = evaluation(subject, subject.modes[-1]).dtype
    values = subject.tensors(point, dtype)
    watched = [values[i] for i in subject.trained]
    heard: dict[str, tuple[Any, Any]] = {}

    def listen(name: str, value: Any, weight: Any) -> None:
        if tf.executing_eagerly():
            tensor = tf.cast(tf.convert_to_tensor(value), tf.float64)
            factor = tf.cast(tf.convert_to_tensor(weight), tf.float64)
            heard[name] = factor, tf.reduce_mean(tensor * factor)

    LISTENERS.append(listen)
    try:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(watched)
            subject.outputs(values, dtype, subject.modes[-1])
    finally:
        LISTENERS.remove(listen)
    return {
        name: (
            float(tf.reduce_mean(factor)),
            float(total),
            _norm(tape.gradient(total, watched)),
        )
        for name, (factor, total) in heard.items()
    }


def _norm(gradients: list[Any]) -> float:
    squares = [
        float(tf.reduce_sum(tf.cast(tf.convert_to_tensor(g), tf.float64) ** 2))
        for g in gradients
        if g is not None
    ]
    return float(np.sqrt(sum(squares)))


def _folded(name: str, looks: list[tuple[float, float, float]]) -> _Term:
    weight, value, gradient = np.array(looks).T
    with np.errstate(all="ignore"):
        known = np.nan_to_num(gradient, nan=0, posinf=0, neginf=0)
    return _Term(
        name,
        float(weight.mean()),
        float(np.mean(value)),
        float(np.sqrt(np.mean(known**2))),
    )


def _judged(subject: Subject, found: list[_Term]) -> Iterator[AuditFinding]:
    """The heaviest against each other."""
    first = max(found, key=lambda one: one.gradient)
    for one in found:
        if one is first:
            continue
        ratio = first.gradient / one.gradient if one.gradient else np.inf
        chosen = first.weight > 1 and one.weight <= _LIGHT * first.weight
        if chosen and ratio >= _TERMS:
            yield _finding(
                subject, "dominant_component", "warning", first.name,
                f"`{first.name}` dominates `{one.name}`: its gradient is "
                f"{ratio:.3g} times as long, with a weight of "
                f"{first.weight:.4g}.",
                "Lower its weight until the gradients are of a size.",
            )  # fmt: skip
        elif ratio >= _FAINT:
            yield _finding(
                subject, "faint_component", "info", one.name,
                f"`{one.name}` has next to no part: the gradient of "
                f"`{first.name}` is {ratio:.3g} times as long.",
                "Raise its weight if it is to matter.",
            )  # fmt: skip


def _finding(
    subject: Subject, check: str, severity: Any, name: str, message: str,
    advice: str,
) -> AuditFinding:  # fmt: skip
    return AuditFinding(
        check=check,
        severity=severity,
        subject=name,
        message=message,
        source=subject.source,
        advice=advice,
    )
