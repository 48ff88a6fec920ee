"""Whether a loss of its own making honours `sample_weight` and `reduction`.

Keras calls a `Loss` as `loss(y_true, y_pred, sample_weight)` and leaves both to
its `__call__`; a class that overrides it has to do what it did.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwatch.audit.evaluation import Evaluation, evaluation, join
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.subject import Subject

__all__ = ["weights"]

_SMALL = 1e-4
_ADVICE = (
    "Override `call`, which returns a loss for each example, and leave "
    "`__call__` to `keras.losses.Loss`: it weighs and reduces."
)


def weights(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Says whether weights of examples and the reduction are obeyed."""
    loss = subject.original
    if subject.kind != "loss" or subject.trained != (1,):
        return
    own = isinstance(loss, keras.losses.Loss)
    if own and type(loss).__call__ is keras.losses.Loss.__call__:
        yield from _averaged(subject)
        return
    if not own and "sample_weight" not in _parameters(loss):
        return
    try:
        yield from _Case(subject).told()
    except Exception as error:  # whatever the user's code raises
        said = " ".join(str(error).split())[:200]
        text = f"`sample_weight` and `reduction` could not be tried: {said}"
        yield Measurement("weights_not_checked", "", "", text)


def _averaged(subject: Subject) -> Iterator[AuditFinding]:
    """A `call` that returns one number: Keras can weigh no example."""
    domain = subject.inputs[0].domain
    if not domain.shape or domain.shape[0] < 2:
        return
    if type(subject.original).__module__.startswith("keras."):
        return
    made = evaluation(subject, subject.modes[-1])
    if made.results(join(subject.sample(1))) != 1:
        return
    apart = _separate(subject, made)
    yield AuditFinding(
        check="weight_ignored",
        severity="warning" if apart else "info",
        subject="",
        message="`call` returns one number for the batch, so `sample_weight` "
        "and `class_weight` only scale it as a whole: no example weighs more "
        "than another.",
        source=subject.source,
        advice="Return a loss for each example; Keras reduces the batch."
        if apart
        else "",
    )


def _separate(subject: Subject, made: Evaluation) -> bool:
    """Whether it is a sum of what each example costs; a ratio is none."""
    (i,) = subject.trained
    points, others = subject.sample(6, salt=41), subject.sample(6, salt=42)

    def values(*changed: int) -> Any:
        mixed = [np.array(v, float) for v in points]
        mixed[i][:, changed] = others[i][:, changed]
        return made.outputs(join(mixed))[:, 0]

    mixed = values() - values(0) - values(1) + values(0, 1)
    small = 1e-4 if made.single(join(points)) else 1e-7
    size = np.abs(values()) + np.abs(values(0, 1))
    return bool((np.abs(mixed) <= small * size).all())


class _Case:
    """A loss that takes weights itself, with one batch."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._loss = subject.original
        sampled = subject.sample(1, salt=40)
        self._point = [value[0] for value in sampled]
        shape = subject.inputs[0].domain.shape
        self._size = shape[0] if shape else 1

    def told(self) -> Iterator[AuditFinding]:
        """What is not obeyed."""
        if "sample_weight" not in _parameters(self._loss):
            yield self._finding(
                "weight_ignored",
                "`__call__` takes no `sample_weight`, which `fit` hands to it.",
            )
        elif self._size > 1 and self._ignored():
            yield self._finding(
                "weight_ignored",
                "The loss is the same whichever example `sample_weight` "
                "weighs: weights, and class weights, have no effect.",
            )
        if isinstance(self._loss, keras.losses.Loss):
            yield from self._reduced()

    def _ignored(self) -> bool:
        """Whether it makes no difference which example has weight."""
        found = []
        for k in range(min(self._size, 4)):
            weight = np.zeros(self._size, "float32")
            weight[k] = 1.0
            found.append(self._value(weight).sum())
        if not np.isfinite(found).all():
            return False
        scale = float(np.abs(found).max())
        return bool(np.ptp(found) <= _SMALL * scale)

    def _reduced(self) -> Iterator[AuditFinding]:
        """A batch with all examples twice: a sum doubles, a mean does not."""
        reduction = self._loss.reduction
        once, twice = self._value(None), self._value(None, 2)
        if reduction in (None, "none"):
            wrong = once.ndim == 0
            expects = "a loss for each example"
        elif (
            once.ndim
            or not np.isfinite([once, twice]).all()
            or not abs(once) > 1e-6
        ):
            return
        else:
            factor = 2.0 if reduction == "sum" else 1.0
            wrong = abs(twice - factor * once) > 1e-2 * abs(once)
            expects = "the sum" if reduction == "sum" else "the mean"
            # A loss of whole batches has no sum.
            wrong = wrong and abs(twice / once - 3 + factor) < 1e-2
        if wrong:
            yield self._finding(
                "reduction_ignored",
                f"It was made with `reduction={reduction!r}`, but does not "
                f"return {expects}.",
            )

    def _value(self, weight: Any, times: int = 1) -> Any:
        values = [
            tf.convert_to_tensor(np.concatenate([v] * times))
            for v in self._point
        ]
        values = [
            tf.cast(v, tf.int32 if one.domain.whole else tf.float32)
            for v, one in zip(values, self._subject.inputs)
        ]
        given = {} if weight is None else {"sample_weight": tf.constant(weight)}
        return np.asarray(self._loss(*values, **given), float)

    def _finding(self, check: str, message: str) -> AuditFinding:
        return AuditFinding(
            check=check,
            severity="warning",
            subject="",
            message=message,
            source=self._subject.source,
            advice=_ADVICE,
        )


def _parameters(loss: Any) -> list[str]:
    try:
        return list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return []
