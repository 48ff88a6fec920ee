"""Whether float32 loses digits that the function itself has not lost.

Value and gradient in float32 are compared with those in float64 at the same
point. A function that feels every step of its inputs from one float32 to the
next is not to blame for that: so much is allowed, and the rounding of the
result. What is lost beyond is the formulation's, where it is a share of the
result that matters, also of the result at usual numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.edges import USUAL, Place
from gradwatch.audit.points import shown
from gradwatch.audit.report import AuditFinding
from gradwatch.audit.running import Answer, Point, Running
from gradwatch.audit.subject import Subject
from gradwatch.provenance.paths import operations
from gradwatch.records import Severity

__all__ = ["rounding"]

_EPS = 2.0**-23
_SHARE = 0.02
"""Share of the result that is lost, from which on it matters."""

_BEYOND = 100.0
"""So many times what rounding of inputs and results explains."""

_STEPS = 4
_DRAWN = 8
"""Usual points, of which half must lose digits: no step, no full mask."""

_LEAST = 0.02
"""A gradient is compared with so much of the largest, at least: one that is 0
by symmetry has rounding errors and nothing else."""

_NEAR = 1e-3
_SECONDS = 0.3
_OFFSET = 1000.0
FAR = f"numbers are about {_OFFSET:g}"
_ADVICE = (
    "Numbers that are nearly alike are subtracted, or small ones added to "
    "large ones: use `log1p`, `expm1`, `log_softmax`, `softplus`, or take the "
    "mean off before squaring."
)


class _Loss(NamedTuple):
    """Digits lost at a point: share of the result, and of what."""

    share: float
    of: str
    narrow: float
    wide: float


def rounding(
    subject: Subject, narrow: Running, wide: Running
) -> Iterator[AuditFinding]:
    """Compares float32 with float64 at places; yields the worst.

    Args:
        subject: what is called.
        narrow: it in float32, in graph mode.
        wide: it in float64.
    """
    if any(map(_random, operations(narrow.graph))):
        return  # float64 draws other numbers
    found: list[tuple[_Loss, Place]] = []
    began = time.perf_counter()
    scale = _scales(subject, wide)
    for place in _offset(subject):
        if time.perf_counter() - began > _SECONDS:
            break
        loss = _lost(subject, narrow, wide, place.point, scale)
        if loss.share > _SHARE and _around(subject, narrow, wide, place, scale):
            found.append((loss, place))
    usual = [each for each in found if each[1].words == USUAL]
    if len(usual) < _DRAWN // 2:
        found = [each for each in found if each[1].words != USUAL]
        usual = []
    if found:
        yield _told(subject, *max(usual or found, key=lambda f: f[0].share))


def _told(subject: Subject, loss: _Loss, place: Place) -> AuditFinding:
    severity: Severity = "warning" if place.words == USUAL else "info"
    own = loss.of == "value"
    what = "value" if own else f"gradient of `{loss.of}`"
    return AuditFinding(
        check="loses_precision",
        severity=severity,
        subject="" if own else loss.of,
        message=f"Float32 loses {_percent(loss.share)} of the {what} where "
        f"{place.words}: {loss.narrow:.6g} instead of {loss.wide:.6g} in "
        "float64.",
        inputs={
            one.name: shown(value)
            for one, value in zip(subject.inputs, place.point)
            if not one.weight
        },
        values={"float32": loss.narrow, "float64": loss.wide},
        source=subject.source,
        advice=_ADVICE,
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 1 else "all"


def _random(operation: Any) -> bool:
    kind = str(operation.type)
    return "Random" in kind or "Multinomial" in kind


def _parts(answer: Answer) -> list[Any]:
    return [answer.values, *answer.slopes]


def _scales(subject: Subject, wide: Running) -> list[float]:
    """How large value and gradients usually are."""
    drawn = zip(*subject.sample(8, salt=4))
    answers = [_parts(wide(_rounded(list(point)))) for point in drawn]
    found = []
    for each in zip(*answers):
        sizes = [float(np.abs(a).max(initial=0.0)) for a in each]
        known = [size for size in sizes if np.isfinite(size)]
        found.append(float(np.median(known)) if known else 0.0)
    least = _LEAST * max(found)
    return [max(size, least) for size in found]


def _lost(
    subject: Subject, narrow: Running, wide: Running, point: Point,
    scales: list[float],
) -> _Loss:  # fmt: skip
    """The largest share of value or gradients that is lost at a point."""
    point = _rounded(point)
    none = _Loss(0.0, "", 0.0, 0.0)
    here, exact = narrow(point), wide(point)
    if not (here.finite and exact.finite):
        return none
    each = list(zip(_parts(here), _parts(exact), scales))
    names = ["value", *(one.name for one in subject.inputs)]
    worst = none
    noise: list[Any] | None = None
    for k, (a, b, scale) in enumerate(each):
        if not a.size or a.shape != b.shape:
            continue
        off = np.abs(a - b)
        q = int(off.argmax())
        size = max(float(np.abs(b).max()), scale)
        share = float(off.max()) / size if size > 1e-30 else 0.0
        if share <= max(_SHARE, worst.share):
            continue
        if noise is None:
            noise = _noise(subject, wide, point, exact)
        allowed = noise[k] + _EPS * float(np.abs(b).max())
        if off.max() > _BEYOND * allowed:
            worst = _Loss(share, names[k], float(a.flat[q]), float(b.flat[q]))
    return worst


def _noise(
    subject: Subject, wide: Running, point: Point, exact: Answer
) -> list[float]:
    """How much each part changes by steps of its inputs to the next float32."""
    found = np.zeros(1 + len(subject.inputs))
    for k in range(_STEPS):
        random = subject.generator(14, k)
        moved = [
            value
            if one.domain.whole
            else value * (1 + _EPS * random.choice([-1.0, 1.0], value.shape))
            for one, value in zip(subject.inputs, point)
        ]
        others = _parts(wide(moved))
        for i, (a, b) in enumerate(zip(others, _parts(exact))):
            if a.size:
                found[i] = max(found[i], np.nan_to_num(np.abs(a - b)).max())
    return list(found)


def _around(
    subject: Subject, narrow: Running, wide: Running, place: Place,
    scales: list[float],
) -> bool:  # fmt: skip
    """Whether as much is lost at most points beside: no step, no kink."""
    random = subject.generator(15)
    lost = 0
    for _ in range(4):
        moved = [
            value
            if one.domain.whole
            else one.domain.clipped(
                value * (1 + _NEAR * random.uniform(-1, 1, value.shape))
            )
            for one, value in zip(subject.inputs, place.point)
        ]
        loss = _lost(subject, narrow, wide, moved, scales)
        lost += loss.share > _SHARE / 2
    return lost >= 2


def _rounded(point: Point) -> list[Any]:
    """A point that float32 holds."""
    return [np.float32(value).astype(np.float64) for value in point]


def _offset(subject: Subject) -> Iterator[Place]:
    """Usual numbers, and such far off 0."""
    for drawn in zip(*subject.sample(_DRAWN, salt=5)):
        yield Place(USUAL, list(drawn), "critical")
    for drawn in zip(*subject.sample(2, salt=6)):
        point = [
            value + _OFFSET
            if one.domain.kind == "real" and not one.weight
            else value
            for one, value in zip(subject.inputs, drawn)
        ]
        yield Place(FAR, point, "info")
