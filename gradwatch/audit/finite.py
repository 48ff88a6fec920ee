"""Whether values and gradients are finite, wherever the function is called.

At the places where numerics break (`edges.py`), in graph mode, under XLA and
eagerly: the three differ (TensorFlow's CPU kernels take the gradient of a root
at 0 to be 0 where what follows is, XLA does not). Then where a search finds
something (`search.py`). What is not finite is traced to its operation and line
(`culprit.py`). Digits that float32 loses (`rounding.py`) and constants that it
swallows (`epsilon.py`) are looked for at the same places.

A function that grows beyond float32 by itself (`exp`) is not at fault.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradwatch.audit.culprit import culprit
from gradwatch.audit.domain import Kind
from gradwatch.audit.edges import USUAL, Place, places
from gradwatch.audit.epsilon import Swallowed, swallowed, unfit
from gradwatch.audit.failures import Failure, grouped, told
from gradwatch.audit.growth import grows, largest, lowered
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.rounding import Digits, digits, rounding
from gradwatch.audit.running import (
    MODES,
    Answer,
    Point,
    Running,
    as_before,
    running,
)
from gradwatch.audit.search import search
from gradwatch.audit.strange import alone, hidden
from gradwatch.audit.subject import Subject

__all__ = ["finite"]

_SECONDS = 1.0
"""Time for the places of one mode of layers, in all ways to run them."""

_EAGER_SECONDS = 0.2
_SEARCH_SECONDS = 0.6
_ALIKE = 8
"""So many places at which the same is not finite are traced to their line."""

_NARROWER: tuple[Kind, ...] = ("positive", "unit")
_WORDS = {"graph": "in graph mode", "xla": "under XLA", "eager": "eagerly"}


def finite(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Looks for inputs at which a value or a gradient is NaN or Inf."""
    seen: set[Any] = set()
    for training in subject.modes:
        runs = _runs(subject, training)
        if not runs or as_before(subject, runs[0], training):
            continue
        meant = _meant(subject, runs[0])
        if meant is not subject and not seen:
            yield _outside(subject, meant)
        count, failures = _failures(meant, runs)
        first = training == subject.modes[0]
        known = digits(meant, runs[0], training) if first else None
        said: list[Any] = list(_searched(meant, runs, failures, known))
        for failure in grouped(failures):
            if failure.key not in seen:
                yield told(meant, failure)
            seen.add(failure.key)
        if not failures:
            yield _measured(count, runs)
            yield from alone(meant, training)
        yield from said
        if known is not None:
            yield from rounding(meant, known)
        if first:
            yield from _dtypes(meant, runs[0], failures)


def _runs(subject: Subject, training: bool) -> list[Running]:
    """The ways in which it runs, graph mode first."""
    dtype = subject.own_dtype
    first = running(subject, dtype, training)
    if first is not None and as_before(subject, first, training):
        return [first]
    tried = (running(subject, dtype, training, mode) for mode in MODES)
    return [run for run in tried if run is not None]


def _meant(subject: Subject, run: Running) -> Subject:
    """A subject whose domain it is meant for.

    Nobody has said which real numbers it gets; where it has no value for
    negative ones it may be meant for others.
    """
    if _usual(subject, run):
        return subject
    for kind in _NARROWER:
        inputs = tuple(
            replace(one, domain=replace(one.domain, kind=kind))
            if one.domain.kind == "real" and not one.weight
            else one
            for one in subject.inputs
        )
        narrower = replace(subject, inputs=inputs)
        if inputs != subject.inputs and _usual(narrower, run):
            return narrower
    return subject


def _usual(subject: Subject, run: Running) -> bool:
    """Whether all is finite at usual numbers."""
    drawn = (place for place in places(subject) if place.words == USUAL)
    return all(run(place.point).finite for place in drawn)


def _outside(subject: Subject, meant: Subject) -> AuditFinding:
    one = next(
        new for old, new in zip(subject.inputs, meant.inputs) if old != new
    )
    return AuditFinding(
        check="not_finite_outside",
        severity="warning" if subject.kind == "activation" else "info",
        subject=one.name,
        message=f"It is not finite for all usual real numbers, but for others "
        f"({one.domain}): it was judged with these.",
        source=subject.source,
        advice="State what it gets: "
        f"inputs={{{one.name!r}: ({one.domain.shape}, (0, 1))}}, say.",
    )


def _failures(
    subject: Subject, runs: Sequence[Running]
) -> tuple[int, list[Failure]]:
    """How many places were looked at, and those that are not finite."""
    found: list[Failure] = []
    alike: Counter[Any] = Counter()
    count, eager, began = 0, 0.0, time.perf_counter()
    for place in places(subject):
        if time.perf_counter() - began > _SECONDS:
            break
        answers: dict[Running, Answer] = {}
        for run in runs:
            if run.mode == "eager" and eager > _EAGER_SECONDS:
                continue
            start = time.perf_counter()
            answers[run] = run(place.point)
            if run.mode == "eager":
                eager += time.perf_counter() - start
        count += 1
        bad = [run for run, answer in answers.items() if not answer.finite]
        if not bad or grows(subject, bad[0], place.point):
            continue
        alike[_kind(place, answers)] += 1
        if alike[_kind(place, answers)] <= _ALIKE:
            found.append(_failure(subject, place, bad[0], answers, runs))
    return count, found


def _kind(place: Place, answers: dict[Running, Answer]) -> Any:
    """What is the same for places at which the same is not finite."""
    broken = tuple(
        (run.mode, *(bool(np.isfinite(part).all()) for part in answer.parts))
        for run, answer in answers.items()
        if run.mode != "eager"
    )
    return place.severity, broken


def _failure(
    subject: Subject, place: Place, first: Running,
    answers: dict[Running, Answer], runs: Sequence[Running],
) -> Failure:  # fmt: skip
    point = lowered(subject, first, place.point)
    if point is not place.point:
        place, answers = place._replace(point=point), {}
    for run in runs:
        if run not in answers:
            answers[run] = run(place.point)
    bad = [run for run, answer in answers.items() if not answer.finite]
    traced = next((run for run in bad if run.mode != "eager"), None)
    by = culprit(traced, place.point) if traced else None
    return Failure(place, tuple(bad), len(runs), by)


def _searched(
    subject: Subject, runs: Sequence[Running], failures: list[Failure],
    known: Digits | None,
) -> Iterator[Measurement]:  # fmt: skip
    """Adds what a search finds that is none of the faults known so far."""
    told_of = {failure.key for failure in failures}
    fast = [run for run in runs if run.mode != "eager"] or list(runs[:1])

    def bad(point: Point) -> bool:
        wrong = [run for run in fast if not run(point).finite]
        if not wrong and known is not None:
            known.look(Place("", point, "info"))
        if not wrong or grows(subject, wrong[0], point):
            return False
        point = lowered(subject, wrong[0], point)
        by = culprit(wrong[0], point) if wrong[0].mode != "eager" else None
        return (by.key if by else None) not in told_of

    try:
        point, tried = search(subject, bad, _SEARCH_SECONDS)
    except ImportError:
        text = "No search for more: install it with `gradwatch[audit]`."
        yield Measurement("searched", "", 0, text)
        return
    if point is not None:
        place = Place("", point, "critical")
        first = next(run for run in fast if not run(point).finite)
        failures.append(_failure(subject, place, first, {}, runs))
    text = "more inputs were tried in a search."
    yield Measurement("searched", "", tried, text)


def _measured(count: int, runs: Sequence[Running]) -> Measurement:
    where = ", ".join(_WORDS[run.mode] for run in runs)
    text = f"places at which value and gradient are finite, {where}."
    return Measurement("finite", "", count, text)


def _dtypes(
    subject: Subject, run: Running, failures: Sequence[Failure]
) -> Iterator[AuditFinding | Measurement]:
    """What follows from the dtype: constants, magnitudes."""
    training = subject.modes[0]
    yield from hidden(subject, run)
    if run.graph is None:
        return
    wide = running(subject, "float64", training)
    points = [place.point for place in places(subject)]
    for one in swallowed(run, wide, points):
        yield _swallowed(subject, one, failures)
    yield from _narrow(subject, wide)


def _narrow(subject: Subject, wide: Running | None) -> Iterator[Measurement]:
    """Magnitudes and constants that dtypes can take."""
    training = subject.modes[0]
    unheld: dict[Any, list[str]] = {}
    for dtype in subject.dtypes:
        narrow = running(subject, dtype, training)
        if narrow is None:
            continue
        size = largest(subject, narrow)
        if size:
            text = f"inputs up to about this size are finite in {dtype}."
            yield Measurement("largest_safe_input", "", size, text)
        if wide is not None and dtype != "float32":
            for one in unfit(wide, dtype):
                key = one.constant, str(one.source)
                unheld.setdefault(key, []).append(dtype)
    for (constant, source), dtypes in unheld.items():
        text = f"is without effect in {' and '.join(dtypes)}: {source}"
        yield Measurement("constant", "", constant, text)


def _swallowed(
    subject: Subject, one: Swallowed, failures: Sequence[Failure]
) -> AuditFinding:
    """A warning where what it was to prevent happens."""
    harm = any(
        failure.by is not None
        and (one.name in failure.by.before or failure.by.source == one.source)
        for failure in failures
    )
    return AuditFinding(
        check="swallowed_epsilon",
        severity="warning" if harm else "info",
        subject="",
        message=f"The constant {one.constant:g} has no effect: {one.how}"
        + (" What it is to prevent happens." if harm else ""),
        values={"constant": one.constant},
        source=one.source,
        advice="Use one of at least 1e-6 beside numbers near 1, or add it to "
        "the small number itself: `(1 - x) + 1e-7`.",
    )
