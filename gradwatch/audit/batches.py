"""What the examples of a batch have to do with each other in a loss.

A loss returns one number for each example, which depends on that example alone,
or one for the batch, which does not depend on the order. Anything else gives
another loss with another batch, and weighs the wrong examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwatch.audit.compared import grouped, named
from gradwatch.audit.domain import Domain
from gradwatch.audit.evaluation import Evaluation, evaluation, join
from gradwatch.audit.layers import layer_subject
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.single import Single
from gradwatch.audit.subject import Subject

__all__ = ["batches"]

_POINTS = 8

_ADVICE = (
    "Reduce over the last axes only (`axis=-1`), and let Keras reduce the "
    "batch; use `axis=-1` in softmax, norms and maxima, too."
)


def batches(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Says whether an example's loss is its own, and order makes none."""
    if subject.kind == "layer":
        yield from _layer(subject)
    if subject.kind != "loss" or len(subject.trained) != 1:
        return
    sizes = {one.domain.shape[:1] for one in subject.inputs}
    if len(sizes) != 1 or () in sizes or (1,) in sizes:
        return
    case = _Case(subject)
    if not case.connected or not case.steady:
        return  # a metric, of which `flow` tells; random
    if not case.shape or case.shape[0] == 1:
        text = "one number for the batch"
        yield Measurement("reduction", "", "batch", f"returns {text}: {_NONE}")
        yield from case.order()
    elif case.shape[0] == case.size:
        text = "returns a loss for each example, so `sample_weight` works."
        yield Measurement("reduction", "", "example", text)
        yield from case.mixed()
    else:
        yield case.misshapen()


_NONE = "`sample_weight` and `class_weight` can tell no examples apart."


def _layer(subject: Subject) -> Iterator[AuditFinding]:
    """A layer mixes no examples, when it is not training."""
    if not _mixes(subject) or not _also_in_rows(subject):
        return
    yield AuditFinding(
        check="batch_mixed",
        severity="warning",
        subject="",
        message="The output for an example depends on the other examples "
        "in the batch, also when it is not training: predictions change "
        "with the batch.",
        source=subject.source,
        advice="Use the last axes only (`axis=-1`), or statistics that "
        "are kept from training, as `BatchNormalization` does.",
    )


def _mixes(subject: Subject) -> bool:
    """Whether the first output of a layer changes with the other inputs."""
    arguments = [i for i, one in enumerate(subject.inputs) if not one.weight]
    sizes = {subject.inputs[i].domain.shape[:1] for i in arguments}
    if len(sizes) != 1 or () in sizes or (1,) in sizes:
        return False
    ((size,),) = sizes
    made = evaluation(subject, False)
    points, others = subject.sample(_POINTS, 33), subject.sample(_POINTS, 34)
    before = made.outputs(join(points))
    values = subject.tensors([v[0] for v in points], made.dtype)
    shapes = [one.shape[:1] for one in subject.outputs(values, made.dtype)]
    if shapes != [(size,)] or not np.array_equal(
        before, made.outputs(join(points)), equal_nan=True
    ):
        return False
    for i in arguments:
        points[i] = points[i].copy()
        points[i][:, 1:] = others[i][:, 1:]
    after = made.outputs(join(points))
    one, other = (v.reshape(_POINTS, size, -1)[:, 0] for v in (before, after))
    return not np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def _also_in_rows(subject: Subject) -> bool:
    """Whether it does so with an axis more, too.

    Attention to the last axis but one takes two axes as it takes three, and
    means no batch by the first of two.
    """
    shape = subject.inputs[0].domain.shape
    if len(shape) != 2:
        return True
    name = subject.inputs[0].name.partition("[")[0]
    domain = {name: Domain((3, 5, shape[-1]))}
    try:
        return _mixes(layer_subject(subject.original, domain, subject.seed))
    except Exception:  # whatever the user's code raises
        return True


class _Case:
    """A loss with a batch of several examples."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._made: Evaluation = evaluation(subject, subject.modes[-1])
        (self._i,) = subject.trained
        self.connected = self._made.connected[self._i]
        self.size = subject.inputs[0].domain.shape[0]
        self._points = subject.sample(_POINTS, salt=30)
        self._others = subject.sample(_POINTS, salt=31)
        self._before = self._values(self._points)
        point = [value[0] for value in self._points]
        tensors = subject.tensors(point, self._made.dtype)
        outputs = subject.outputs(tensors, self._made.dtype, subject.modes[-1])
        self.shape = tuple(outputs[0].shape) if len(outputs) == 1 else ()
        joined = np.concatenate([v.reshape(_POINTS, -1) for v in point_rows(
            self._points)], axis=1)  # fmt: skip
        self._small = 1e-4 if self._made.single(joined) else 1e-7

    @property
    def steady(self) -> bool:
        """Whether it returns the same twice."""
        return not self._differs(self._before, self._values(self._points))

    def order(self) -> Iterator[AuditFinding]:
        """One number for the batch: the same in any order."""
        for turned in self._orders():
            after = self._values([v[:, turned] for v in self._points])
            if self._differs(self._before, after):
                yield self._found(
                    "The loss depends on the order of the examples in the "
                    f"batch: {self._worst(after)}.",
                    turned,
                )
                return

    def mixed(self) -> Iterator[AuditFinding]:
        """A number for each example: its own, wherever it stands."""
        part = {1 - self._i: "targets", self._i: "predictions"}
        for changed, what in reversed(part.items()):
            points = list(self._points)
            points[changed] = points[changed].copy()
            points[changed][:, 1:] = self._others[changed][:, 1:]
            after = self._values(points)
            if self._differs(self._first(self._before), self._first(after)):
                yield self._mixes(what, self._first(after))
                return
        for turned in self._orders():
            after = self._values([v[:, turned] for v in self._points])
            if self._differs(self._turned(turned), after):
                yield self._found(
                    "An example's loss depends on its place in the batch: "
                    f"{self._worst(after, self._turned(turned))}.",
                    turned,
                )
                return

    def misshapen(self) -> AuditFinding:
        """Neither one number nor one for each example."""
        flat = self.shape[0] % self.size == 0
        return self._finding(
            "info" if flat else "warning",
            f"It returns a shape of {self.shape} for a batch of {self.size}, "
            "which is not one number for each example"
            + ("" if flat else ": examples are averaged away")
            + ". The mean is the same, but `sample_weight` fails or weighs "
            "what it should not.",
        )

    def _mixes(self, what: str, after: Any) -> AuditFinding:
        """Of the weights of a batch's targets and of pairs it is meant."""
        meant = self._compares() or (what == "targets" and self._weighs())
        return self._finding(
            "info" if meant else "warning",
            "The loss of an example depends on the other examples' "
            f"{what} in the batch: the first one's is "
            f"{self._worst(after, self._first(self._before))} if only "
            "theirs change.",
        )

    def _compares(self) -> bool:
        """Whether it is made to compare examples with each other.

        Its arguments are no target and prediction, labels say only which
        examples belong together, or a rotation of all vectors changes nothing,
        as of what knows only their lengths and angles.
        """
        single = Single(self._subject)
        if not named(self._subject) or grouped(self._subject, single):
            return True
        shapes = {one.domain.shape for one in self._subject.inputs}
        kinds = {one.domain.kind for one in self._subject.inputs}
        (shape, *others) = shapes
        if others or kinds != {"real"} or len(shape) < 2 or shape[-1] < 2:
            return False
        noise = self._subject.generator(32).normal(size=(shape[-1],) * 2)
        turned = [v @ np.linalg.qr(noise)[0] for v in self._points]
        return not self._differs(self._before, self._values(turned))

    def _weighs(self) -> bool:
        """Whether other targets only weigh an example's loss.

        Then its values with some of them are those with others, times a
        factor and plus a number, whatever the prediction is.
        """
        target = 1 - self._i
        rows = []
        for used in (self._points, self._others):
            points = [v.copy() for v in self._points]
            points[target][:, 1:] = used[target][:, 1:]
            found = []
            for k in range(_POINTS):
                mine = points[self._i].reshape(_POINTS, self.size, -1).copy()
                other = self._others[self._i].reshape(mine.shape)
                mine[:, 0, 0] = other[k, 0, 0]
                shape = points[self._i].shape
                changed = list(points)
                changed[self._i] = mine.reshape(shape)
                found.append(self._first(self._values(changed))[:, 0])
            rows.append(np.array(found))
        one, two = (row - row[:1] for row in rows)
        # Of two columns of which one is a multiple of the other.
        product = (one * two).sum(0) ** 2
        size = (one**2).sum(0) * (two**2).sum(0)
        known = size > 1e-20
        return bool((product >= (1 - 1e-4) * size)[known].all())

    def _values(self, points: list[Any]) -> Any:
        rows = point_rows(points)
        vectors = np.concatenate([v.reshape(_POINTS, -1) for v in rows], axis=1)
        return self._made.outputs(vectors)

    def _orders(self) -> Iterator[Any]:
        places = np.arange(self.size)
        yield np.roll(places, 1)
        yield places[::-1]

    def _first(self, values: Any) -> Any:
        return values.reshape(_POINTS, self.size, -1)[:, 0]

    def _turned(self, turned: Any) -> Any:
        rows = self._before.reshape(_POINTS, self.size, -1)[:, turned]
        return rows.reshape(_POINTS, -1)

    def _differs(self, one: Any, other: Any) -> bool:
        return bool((self._apart(one, other) > self._small).any())

    def _apart(self, one: Any, other: Any) -> Any:
        """Differences, relative to the typical value."""
        with np.errstate(all="ignore"):
            both = np.isfinite(one) & np.isfinite(other)
            size = np.maximum(np.abs(one), np.abs(other))
            usual = np.median(size[both]) if both.any() else 1.0
            off = np.abs(one - other) / (np.maximum(size, usual) + 1e-12)
        return np.where(both, off, 0.0)

    def _worst(self, after: Any, before: Any = None) -> str:
        before = self._before if before is None else before
        k = np.unravel_index(self._apart(before, after).argmax(), after.shape)
        return f"{after[k]:.6g} instead of {before[k]:.6g}"

    def _found(self, message: str, turned: Any) -> AuditFinding:
        order = ", ".join(map(str, turned))
        return self._finding("warning", f"{message[:-1]} in the order {order}.")

    def _finding(self, severity: Any, message: str) -> AuditFinding:
        return AuditFinding(
            check="batch_mixed",
            severity=severity,
            subject="",
            message=message,
            source=self._subject.source,
            advice=_ADVICE if severity == "warning" else "",
        )


def point_rows(points: list[Any]) -> list[Any]:
    """Returns points as float64 arrays."""
    return [np.asarray(value, float) for value in points]
