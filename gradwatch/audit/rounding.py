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
from gradwatch.audit.nearby import LEAST, draws, noise
from gradwatch.audit.points import shown
from gradwatch.audit.report import AuditFinding
from gradwatch.audit.running import Answer, Point, Running, running
from gradwatch.audit.shrink import shrunk
from gradwatch.audit.subject import Subject
from gradwatch.records import Severity

__all__ = ["Digits", "digits", "rounding"]

_EPS = 2.0**-23
_SHARE = 0.02
"""Share of the result that is lost, from which on it matters."""

_BEYOND = 100.0
"""So many times what rounding of inputs and results explains."""

_STEPS = 4
_MORE_STEPS = 16
_TINY = 1e-30
_DRAWN = 8
"""Usual points, of which half must lose digits: no step, no full mask."""

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


class Digits:
    """Compares float32 with float64, at the same point that float32 holds.

    Args:
        subject: what is called.
        narrow: it in float32, in graph mode.
        wide: it in float64.
    """

    def __init__(
        self, subject: Subject, narrow: Running, wide: Running
    ) -> None:
        self._subject, self._narrow, self._wide = subject, narrow, wide
        self._scales = _scales(subject, wide)
        kinds = {one.domain.kind for one in subject.inputs if not one.weight}
        self._stated = kinds <= {"range", "ids", "given"}
        self._found: list[tuple[_Loss, Place]] = []

    def look(self, place: Place) -> None:
        """Keeps a place at which digits are lost, and at most others beside."""
        if not place.words:
            if not self._stated:
                return  # among all real numbers each sum loses some
            place = place._replace(point=[_plain(v) for v in place.point])
        loss = self._lost(place.point, _STEPS)
        if loss.share > _SHARE and self._around(place):
            self._found.append((loss, place))

    def told(self) -> Iterator[AuditFinding]:
        """Yields the worst: at usual numbers, else far off 0, else anywhere."""
        usual, far, others = (
            [each for each in self._found if each[1].words == words]
            for words in (USUAL, FAR, "")
        )
        # At some usual ones only: a step, a mask.
        best = usual if len(usual) >= _DRAWN // 2 else far or others
        for loss, place in sorted(best, key=lambda f: -f[0].share):
            if place.words or self._sure(place):
                yield _told(self._subject, loss, self._simpler(place))
                return

    def _sure(self, place: Place) -> bool:
        """Whether it stays so if rounding is looked at more closely."""
        return self._lost(place.point, _MORE_STEPS).share > _SHARE

    def _simpler(self, place: Place) -> Place:
        if place.words:
            return place

        def lossy(point: Point) -> bool:
            moved = place._replace(point=point)
            return self._sure(moved) and self._around(moved)

        return place._replace(
            point=_rounded(shrunk(self._subject, place.point, lossy))
        )

    def _lost(self, point: Point, steps: int) -> _Loss:
        """The largest share of value or gradients that is lost at a point."""
        point = _rounded(point)
        none = _Loss(0.0, "", 0.0, 0.0)
        here, exact = self._narrow(point), self._wide(point)
        if not (here.finite and exact.finite):
            return none
        each = list(zip(here.parts, exact.parts, self._scales))
        names = ["value", *(one.name for one in self._subject.inputs)]
        worst = none
        known: list[float] | None = None
        for k, (a, b, scale) in enumerate(each):
            if not a.size or a.shape != b.shape:
                continue
            off = np.abs(a - b)
            q = int(off.argmax())
            size = max(float(np.abs(b).max()), scale)
            share = float(off.max()) / size if size > 1e-30 else 0.0
            if share <= max(_SHARE, worst.share):
                continue
            if known is None:
                known = self._noise(point, exact, steps)
            allowed = known[k] + _EPS * float(np.abs(b).max())
            if off.max() > _BEYOND * allowed:
                value, other = float(a.flat[q]), float(b.flat[q])
                worst = _Loss(share, names[k], value, other)
        return worst

    def _noise(self, point: Point, exact: Answer, steps: int) -> list[float]:
        """What each part changes by if inputs are the next float32."""
        subject, every = self._subject, range(steps)
        return noise(subject, self._wide, point, exact, every, "float32")

    def _around(self, place: Place) -> bool:
        """Whether as much is lost at most points beside: no step, no kink."""
        random = self._subject.generator(15)
        lost = 0
        for _ in range(4):
            moved = [
                value
                if one.domain.whole
                else one.domain.clipped(
                    value * (1 + _NEAR * random.uniform(-1, 1, value.shape))
                )
                for one, value in zip(self._subject.inputs, place.point)
            ]
            lost += self._lost(moved, _STEPS).share > _SHARE / 2
        return lost >= 2


def digits(subject: Subject, narrow: Running, training: bool) -> Digits | None:
    """Returns what compares float32 with float64, `None` where it cannot be.

    Args:
        subject: what is called.
        narrow: it as it runs in training, in graph mode.
        training: the mode of layers.
    """
    wide = running(subject, "float64", training)
    if narrow.dtype != "float32" or narrow.graph is None or wide is None:
        return None
    # Float64 would draw other random numbers.
    return None if draws(narrow) else Digits(subject, narrow, wide)


def rounding(subject: Subject, known: Digits) -> Iterator[AuditFinding]:
    """Yields where float32 loses digits; looks at usual numbers and far ones.

    Args:
        subject: what is called.
        known: what a search has looked at before.
    """
    began = time.perf_counter()
    for place in _offset(subject):
        if time.perf_counter() - began > _SECONDS:
            break
        known.look(place)
    yield from known.told()


def _told(subject: Subject, loss: _Loss, place: Place) -> AuditFinding:
    severity: Severity = "warning" if place.words == USUAL else "info"
    own = loss.of == "value"
    what = "value" if own else f"gradient of `{loss.of}`"
    return AuditFinding(
        check="loses_precision",
        severity=severity,
        subject="" if own else loss.of,
        message=f"Float32 loses {_percent(loss.share)} of the {what} "
        f"{place.where}: {loss.narrow:.6g} instead of {loss.wide:.6g} in "
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


def _scales(subject: Subject, wide: Running) -> list[float]:
    """How large value and gradients usually are."""
    drawn = zip(*subject.sample(8, salt=4))
    answers = [wide(_rounded(list(point))).parts for point in drawn]
    found = []
    for each in zip(*answers):
        sizes = [float(np.abs(a).max(initial=0.0)) for a in each]
        known = [size for size in sizes if np.isfinite(size)]
        found.append(float(np.median(known)) if known else 0.0)
    least = LEAST * max(found)
    return [max(size, least) for size in found]


def _plain(numbers: Any) -> Any:
    """Numbers without such that float32 kernels take for 0."""
    return np.where(np.abs(numbers) < _TINY, 0.0, numbers)


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
