"""Whether there is a gradient: none, zero everywhere, for how many inputs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np

from gradwatch.audit.evaluation import Evaluation, evaluation, join
from gradwatch.audit.points import apart
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.running import running
from gradwatch.audit.stilled import stilled_at
from gradwatch.audit.subject import Subject
from gradwatch.audit.traced import cuts, passes_of
from gradwatch.records import Cut, Severity
from gradwatch.reports import Source
from gradwatch.rules.cuts import advice, reason

__all__ = ["flow"]

_POINTS = 64
_RARE = 0.05
"""Share of inputs with a gradient below which most steps learn nothing."""

_PAIRS = 6
_SMALL = 1e-4
"""Relative change of an input that a value with a slope shows."""

_STEP = (
    "Use a smooth surrogate as the loss (cross-entropy, a sigmoid of the "
    "difference), and keep this one as a metric."
)


_NATURE = (
    "Nothing: such a layer prepares data, and has no weights of its own. No "
    "layer that is to learn may stand before it."
)


def flow(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Says of which inputs there is a gradient, and what cuts it."""
    if not subject.trained:
        text = "all that it takes are whole numbers: no gradient is asked for."
        yield Measurement("usable_gradient", "", "none", text)
        return
    training = subject.modes[-1]
    made = evaluation(subject, training)
    vectors = join(subject.sample(_POINTS, salt=2))
    results = made.results(vectors)
    upstream = subject.generator(3).uniform(0.5, 1.5, (_POINTS, results))
    slopes = made.gradients(vectors, upstream)
    case = _Case(subject, made, vectors, slopes)
    for i in subject.trained:
        if not made.connected[i]:
            yield case.missing(i)
        elif not np.any(slopes[:, made.slices[i]]):
            if not case.moves(i):
                yield case.zero(i)
        else:
            yield from case.share(i)


class _Case:
    """Gradients at random points: float64 `[P, N]` each."""

    def __init__(
        self, subject: Subject, made: Evaluation, vectors: Any, slopes: Any
    ) -> None:
        self._subject, self._made = subject, made
        self._vectors, self._slopes = vectors, slopes

    def missing(self, i: int) -> AuditFinding:
        """The gradient with respect to an input is `None`."""
        name = self._subject.inputs[i].name
        return self._told(
            "missing_gradient", i, self._severity(i),
            f"There is no gradient with respect to `{name}`: ",
            self._cut(i, zero=False),
        )  # fmt: skip

    def zero(self, i: int) -> AuditFinding:
        """It is zero at all points."""
        name = self._subject.inputs[i].name
        return self._told(
            "zero_gradient", i, self._severity(i),
            f"The gradient with respect to `{name}` is zero at each of "
            f"{_POINTS} random points: ",
            self._cut(i, zero=True),
        )  # fmt: skip

    def share(self, i: int) -> Iterator[AuditFinding | Measurement]:
        """It is zero at some points: of how many is measured."""
        one, part = self._subject.inputs[i], self._made.slices[i]
        own = self._slopes[:, part]
        alive = np.isfinite(own) & (own != 0)
        what = "numbers"
        if one.weight:
            alive, what = alive.any(1, keepdims=True), "points"
        elif self._subject.kind != "activation" and len(one.domain.shape) > 1:
            rows = alive.reshape(_POINTS, one.domain.shape[0], -1)
            alive, what = rows.any(2), "examples"
        share = float(alive.mean())
        text = f"share of the {what} with a gradient that is not zero"
        yield Measurement("usable_gradient", one.name, share, text)
        if share < _RARE:
            source, why = self._stilled(i)
            yield self._finding(
                "zero_gradient", i, "warning",
                f"Only {100 * share:.2g} % of the {what} have a gradient with "
                f"respect to `{one.name}` that is not zero{why}.",
                source, _STEP,
            )  # fmt: skip

    def moves(self, i: int) -> bool:
        """Whether a small change of the input changes the value."""
        before = self._made.outputs(self._vectors)
        after = self._made.outputs(self._shifted(i, _SMALL))
        return bool((before != after).any(1).mean() > 0.5)

    def _depends(self, i: int) -> bool:
        """Whether a large change of the input changes the value."""
        before = self._made.outputs(self._vectors)
        after = self._made.outputs(self._shifted(i, 2.0))
        return bool((before != after).any())

    def _stilled(self, i: int) -> tuple[Source | None, str]:
        """The line from which on a value no longer follows an input, and how.

        At points at which the gradient is zero, and is not where it should be.
        """
        subject, made = self._subject, self._made
        run = running(subject, made.dtype, made.training)
        if made.eager or run is None:
            return subject.source, ""
        dead = ~np.any(self._slopes[:, made.slices[i]], axis=1)
        few = np.flatnonzero(dead)[:_PAIRS]
        sets = self._vectors[few], self._shifted(i, _SMALL)[few]
        pairs = list(zip(*([apart(subject, made, v) for v in s] for s in sets)))
        line, operation, own = stilled_at(run, pairs)
        if own >= 0:
            passes = passes_of(subject, made.training, i).items()
            lines = (each for each, numbers in passes if own in numbers)
            return next(lines, line) or subject.source, ""
        if line is None:
            return subject.source, ""
        return line, f": what `{operation}` returns does not follow it"

    def _shifted(self, i: int, width: float) -> Any:
        part = self._made.slices[i]
        random = self._subject.generator(4)
        found = self._vectors.copy()
        own = found[:, part]
        size = np.maximum(np.abs(own), 0.1)
        found[:, part] = own + width * size * random.normal(size=own.shape)
        domain = self._subject.inputs[i].domain
        found[:, part] = domain.clipped(found[:, part])
        return found

    def _severity(self, i: int) -> Severity:
        """Nothing learns: critical. Something else does, or none can: less."""
        if self._by_nature:
            return "info"
        alive = [
            j
            for j in self._subject.trained
            if j != i and np.any(self._slopes[:, self._made.slices[j]])
        ]
        if not alive:
            return "critical"
        if self._subject.inputs[i].weight:
            return "warning"
        weights = any(self._subject.inputs[j].weight for j in alive)
        arguments = [j for j in alive if not self._subject.inputs[j].weight]
        return "info" if weights and not arguments else "warning"

    @cached_property
    def _by_nature(self) -> bool:
        """Whether it is a layer that turns data into others, without weights.

        It returns whole numbers, or Keras has made it so (one-hot rows).
        """
        subject, made = self._subject, self._made
        if subject.kind != "layer" or any(i.weight for i in subject.inputs):
            return False
        kind = type(subject.original)
        given = kind.__module__.startswith("keras.")
        if given and not issubclass(kind, keras.layers.Lambda):
            return True
        point = [value[0] for value in subject.sample(1)]
        values = subject.tensors(point, made.dtype)
        results = subject.outputs(values, made.dtype, made.training)
        return not any(result.dtype.is_floating for result in results)

    def _cut(self, i: int, *, zero: bool) -> Cut | None:
        name = self._subject.inputs[i].name
        training = self._made.training
        found = cuts(self._subject, training, [name], zero=zero)
        return next((cut for cut in found if name in cut.variables), None)

    def _told(
        self, check: str, i: int, severity: Severity, begin: str,
        cut: Cut | None,
    ) -> AuditFinding:  # fmt: skip
        source = self._subject.source
        if cut is not None and cut.kind != "unused":
            if cut.file:
                source = Source(cut.file, cut.line, cut.function, cut.code)
            message, do = f"{begin}{reason(cut)}.", advice(cut)
        elif self._made.eager:
            message = f"{begin}it cannot be traced, so nothing is known of it."
            do = "Write it in operations of TensorFlow or `keras.ops`."
        else:
            depends = self._depends(i)
            source, why = self._stilled(i)
            said = (
                "changes in steps only" if depends else "does not depend on it"
            )
            message = f"{begin}the value {said}{why}."
            do = _STEP if depends else ""
        if self._by_nature:
            do = _NATURE
        return self._finding(check, i, severity, message, source, do)

    def _finding(
        self, check: str, i: int, severity: Severity, message: str,
        source: Source | None, do: str,
    ) -> AuditFinding:  # fmt: skip
        return AuditFinding(
            check=check,
            severity=severity,
            subject=self._subject.inputs[i].name,
            message=message,
            source=source,
            advice=do,
        )
