"""The places at which numerics tend to break, inside of a subject's domains.

Zeros, ties, rows alike, the ends of a domain, large and tiny magnitudes, rows
with one extreme number. Each is as bad as what happens there, at most: a zero
is met in every run, a subnormal in hardly any.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.domain import Domain
from gradwatch.audit.running import Point
from gradwatch.audit.subject import Subject
from gradwatch.records import Severity

__all__ = ["LARGEST", "USUAL", "Place", "places"]

USUAL = "numbers are usual"

LARGEST = 1e4
"""Largest magnitude of a real number that a function must bear: logits come to
that early in bad runs, and all that squares or multiplies two of them is far
from float32's end."""

_TINY = (1e-12, 1e-20, 1e-30, 1e-40)
"""Positive numbers whose square, or which themselves, float32 has not."""

_NEXT = 2.0**-24
"""From 1 to the next smaller float32."""

_HALF = 20.0
"""The same of 16 bits: the square of more than 255 leaves float16."""

_DRAWN = 6


class Place(NamedTuple):
    """A point and what is special about it.

    Attributes:
        words: what is special: `y_pred is 0`; `""` of one found by a search.
        point: see `Point`.
        severity: the worst that something not finite there may be.
    """

    words: str
    point: Point
    severity: Severity

    @property
    def where(self) -> str:
        """The end of a sentence."""
        return f"where {self.words}" if self.words else "at the input below"


class _Value(NamedTuple):
    words: str
    value: Any
    severity: Severity = "critical"


def places(subject: Subject) -> Iterator[Place]:
    """Yields places, the simplest and commonest first."""
    inputs = subject.inputs
    drawn = list(zip(*subject.sample(_DRAWN, salt=3)))
    weights = [value[0] for value in subject.sample(1)]
    random = subject.generator(12)
    known: list[list[_Value]] = []
    for i, one in enumerate(inputs):
        if one.weight:
            continue
        usual = drawn[0][i]
        every = _values(one.name, one.domain, usual, random)
        known.append([*every] if one.trained else [*_targets(every)])
    count = len(known)

    half = subject.own_dtype != "float32"

    def place(parts: Any) -> Place:
        chosen = [part.value for part in parts] + weights[count:]
        words = [part.words for part in parts if part.words]
        worst = min((part.severity for part in parts), key=_RANK.index)
        if half and max(np.abs(v).max(initial=0.0) for v in chosen) > _HALF:
            worst = "info"
        return Place(" and ".join(words) or USUAL, chosen, worst)

    for each in drawn:
        yield Place(USUAL, [*each[:count], *weights[count:]], "critical")
    yield from _alike(subject, drawn[0], weights)
    if count <= 2:
        for parts in product(*reversed(known)):
            yield place(parts[::-1])
        return
    for i, values in enumerate(known):
        for value in values:
            usual = [_Value("", drawn[1][j]) for j in range(count)]
            usual[i] = value
            yield place(usual)


_RANK: tuple[Severity, ...] = ("info", "warning", "critical")


def _values(
    name: str, domain: Domain, usual: Any, random: np.random.Generator
) -> Iterator[_Value]:
    """What an input may be, itself first."""
    yield _Value("", usual)
    if not usual.size:
        return
    match domain.kind:
        case "simplex" | "one_hot":
            yield from _rows(name, domain, usual)
            return
        case "binary" | "signs" | "ids":
            low, high = _ends(domain)
            yield _Value(f"{name} is {low:g}", np.full_like(usual, low))
            yield _Value(f"{name} is {high:g}", np.full_like(usual, high))
            return
        case "given":
            yield _Value(f"all of {name} are alike", _first(usual))
            return
    for number, severity in _numbers(domain):
        told = f"{name} is {number:g}"
        if 0 < 1 - number <= _NEXT:
            told = f"{name} is the last float32 before 1"
        yield _Value(told, np.full_like(usual, number), severity)
        some = np.where(random.random(usual.shape) < 0.5, number, usual)
        if usual.size > 1:
            yield _Value(f"{told} in places", some, severity)
    yield from _patterns(name, domain, usual, random)


_TARGETS = (0.0, 1.0, -1.0)


def _targets(values: Iterator[_Value]) -> Iterator[_Value]:
    """Of what an input may be that which changes how another one is read."""
    for each in values:
        first = each.value.flat[0] if each.value.size else 0.0
        even = np.all(each.value == first)
        if not each.words or not even or first in _TARGETS:
            yield each


def _numbers(domain: Domain) -> Iterator[tuple[float, Severity]]:
    """Numbers that a domain of real ones holds."""
    match domain.kind:
        case "real":
            for number in (0.0, -0.0, 1.0, -1.0, 20.0, -20.0, 100.0, -100.0):
                yield number, "critical"
            yield LARGEST, "critical"
            yield -LARGEST, "critical"
            yield 1e-6, "critical"
        case "positive":
            for number in (1.0, 1e-3, 30.0, 1e-6, LARGEST):
                yield number, "critical"
            yield 0.0, "warning"
        case "unit":
            for number in (0.0, 1.0, 0.5, 1e-7, 1 - _NEXT):
                yield number, "critical"
        case "range":
            for number in domain.special():
                yield number, "critical"
            return
    for number in _TINY:
        yield number, "info"


def _patterns(
    name: str, domain: Domain, usual: Any, random: np.random.Generator
) -> Iterator[_Value]:
    """Patterns of several numbers."""
    yield _Value(f"all of {name} are alike", _first(usual))
    low, high = _ends(domain)
    signs = random.random(usual.shape) < 0.5
    ends = np.where(signs, low, high)
    yield _Value(f"{name} is {low:g} or {high:g}", ends)
    if domain.kind == "real":
        for large in (20.0, 100.0):
            numbers = np.where(signs, -large, large)
            yield _Value(f"{name} is {-large:g} or {large:g}", numbers)
    single = usual.copy()
    single.reshape(-1)[:: max(1, usual.shape[-1] if usual.ndim else 1)] = high
    yield _Value(f"{name} is {high:g} in one place", single)


def _ends(domain: Domain) -> tuple[float, float]:
    match domain.kind:
        case "real":
            return -LARGEST, LARGEST
        case "positive":
            return 1e-6, LARGEST
        case "signs":
            return -1.0, 1.0
        case "ids" | "range":
            return domain.low, domain.high
    return 0.0, 1.0


def _rows(name: str, domain: Domain, usual: Any) -> Iterator[_Value]:
    """Rows of probabilities that are certain, even or alike."""
    classes = usual.shape[-1]
    sure = np.eye(classes)
    most = sure[usual.argmax(-1)]
    yield _Value(f"{name} is one-hot", most)
    yield _Value(f"{name} is one-hot", np.roll(most, 1, -1))
    first = np.broadcast_to(sure[0], usual.shape).copy()
    yield _Value(f"{name} is one-hot, all rows alike", first)
    if domain.kind == "simplex":
        even = np.full_like(usual, 1.0 / classes)
        yield _Value(f"{name} is even", even)


def _first(usual: Any) -> Any:
    """All examples as the first one."""
    if not usual.ndim:
        return usual
    return np.broadcast_to(usual[:1], usual.shape).copy()


def _alike(subject: Subject, usual: Point, weights: Point) -> Iterator[Place]:
    """Inputs that are each other: a prediction that is its target, say."""
    free = [i for i, one in enumerate(subject.inputs) if not one.weight]
    if len(free) < 2:
        return
    first = subject.inputs[free[0]]
    for i in free[1:]:
        one = subject.inputs[i]
        if one.domain.shape != first.domain.shape or first.domain.whole:
            continue
        point = [*usual[: len(free)], *weights[len(free) :]]
        point[i] = one.domain.clipped(point[free[0]])
        yield Place(f"{one.name} is {first.name}", list(point), "critical")
