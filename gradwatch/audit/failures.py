"""A place that is not finite, as a finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.culprit import Culprit, culprit
from gradwatch.audit.edges import Place
from gradwatch.audit.growth import edge
from gradwatch.audit.points import shown
from gradwatch.audit.report import AuditFinding
from gradwatch.audit.running import Answer, Point, Running
from gradwatch.audit.shrink import shrunk
from gradwatch.audit.subject import Subject
from gradwatch.autopsy.advice import advice
from gradwatch.records import SEVERITIES

__all__ = ["Failure", "grouped", "told"]

_WORDS = {"graph": "in graph mode", "xla": "under XLA", "eager": "eagerly"}


class Failure(NamedTuple):
    """A place that is not finite.

    Attributes:
        place: the point, and what is special about it.
        runs: the ways to run it in which it is not finite.
        modes: in how many ways it was run.
        by: what did it, `None` if that was not found.
    """

    place: Place
    runs: tuple[Running, ...]
    modes: int
    by: Culprit | None

    @property
    def key(self) -> Any:
        """What is the same for the same fault."""
        return self.by.key if self.by else None


def grouped(failures: Sequence[Failure]) -> list[Failure]:
    """Returns the worst of each fault; lesser ones of its line are left out."""
    ranked = sorted(failures, key=lambda f: -SEVERITIES.index(f.place.severity))
    found: dict[Any, Failure] = {}
    lines: set[Any] = set()
    for failure in ranked:
        line = failure.by.source if failure.by else None
        lesser = failure.place.severity == "info" and found
        if failure.key in found or (lesser and (line in lines or not line)):
            continue
        found[failure.key] = failure
        lines.add(line)
    return list(found.values())


def told(subject: Subject, failure: Failure) -> AuditFinding:
    """Returns a failure as a finding, at the simplest point that shows it."""
    run, by = failure.runs[0], failure.by
    point = shrunk(subject, failure.place.point, lambda p: _same(run, p, by))
    answer = run(point)
    if run.mode != "eager":
        by = culprit(run, point, described=True) or by
    names = [
        one.name
        for one, slope in zip(subject.inputs, answer.slopes)
        if not np.isfinite(slope).all()
    ]
    large = edge(subject, run, point)[1]
    message = f"{_what(answer, names)} {failure.place.where}"
    if large:
        message += f" (from about {large:.3g} on)"
    message += f"{_where(failure)}.{_why(by)}"
    return AuditFinding(
        check="not_finite",
        severity=failure.place.severity,
        subject=names[0] if names else "",
        message=message,
        inputs={
            one.name: shown(value)
            for one, value in zip(subject.inputs, point)
            if not one.weight
        },
        values=_values(answer, names, by),
        source=(by.source if by else None) or subject.source,
        advice=advice(by.operation) if by else "",
    )


def _same(run: Running, point: Point, by: Culprit | None) -> bool:
    """Whether it is not finite at a point, by the same operation."""
    if run(point).finite:
        return False
    if by is None or run.mode == "eager":
        return True
    other = culprit(run, point)
    return other is not None and other.key == by.key


def _what(answer: Answer, names: Sequence[str]) -> str:
    value = _named(answer.values)
    slopes = [_named(slope) for slope in answer.slopes]
    slope = next((each for each in slopes if each), "")
    of = ", ".join(f"`{name}`" for name in names[:3])
    if not slope:
        return f"The value is {value}"
    if not value:
        return f"The gradient with respect to {of} is {slope}"
    if value == slope:
        return f"The value and the gradient with respect to {of} are {value}"
    return f"The value is {value} and the gradient with respect to {of} {slope}"


def _named(numbers: Any) -> str:
    """What is not finite in numbers, in one word."""
    if np.isnan(numbers).any():
        return "NaN"
    if np.isposinf(numbers).any():
        return "Inf"
    return "-Inf" if np.isneginf(numbers).any() else ""


def _where(failure: Failure) -> str:
    if len(failure.runs) == failure.modes:
        return ""
    names = " and ".join(_WORDS[run.mode] for run in failure.runs)
    more = ""
    if names == _WORDS["xla"]:
        more = ", which Keras uses by itself on a GPU"
    return f", {names} only{more}"


def _why(by: Culprit | None) -> str:
    if by is None:
        return ""
    whose = "The derivative of `" if by.backward else "`"
    given = " ".join(by.inputs)
    return f" {whose}{by.operation}` is the first that is not. {given}"


def _values(
    answer: Answer, names: Sequence[str], by: Culprit | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"value": _shortest(answer.values)}
    for slope in answer.slopes:
        if not np.isfinite(slope).all():
            found["gradient"] = _shortest(slope)
            break
    if by is not None:
        found["operation"] = by.operation
    return found


def _shortest(numbers: Any) -> Any:
    """A single number, or the first that is not finite."""
    bad = numbers[~np.isfinite(numbers)]
    return float(bad.flat[0] if bad.size else numbers.flat[0])
