"""Curves of a loss over its prediction, for plots."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradwatch.audit.domain import Domain
from gradwatch.audit.report import Curve
from gradwatch.audit.single import Single
from gradwatch.audit.subject import Subject

__all__ = ["curves"]

_NUMBERS = 121
_SLOW = 1e-3
_TARGETS: dict[str, tuple[float, ...]] = {
    "real": (0.0,),
    "signs": (1.0, -1.0),
    "binary": (1.0, 0.0),
    "unit": (0.5,),
    "positive": (1.0,),
}
_BOUNDS = {"real": (-6.0, 6.0), "unit": (0.0, 1.0), "positive": (0.01, 6.0)}


def curves(subject: Subject) -> Iterator[Curve]:
    """Yields the loss over a prediction all numbers of which are alike.

    Of rows of probabilities and of classes by number there is none.
    """
    if subject.kind != "loss" or len(subject.trained) != 1:
        return
    single = Single(subject)
    bounds = _bounds(single.predictions)
    if bounds is None or single.seconds > _SLOW:
        return
    # Not at a bound, where a logarithm has a pole.
    margin = 1e-3 * (bounds[1] - bounds[0])
    x = np.linspace(bounds[0] + margin, bounds[1] - margin, _NUMBERS)
    (i,) = subject.trained
    shape = single.predictions.shape[1:]
    rows = np.ones((_NUMBERS, *shape)) * x.reshape(-1, *[1] * len(shape))
    for target in _TARGETS.get(single.targets.kind, ()):
        targets = np.full((_NUMBERS, *single.targets.shape[1:]), target)
        value = single.values(targets, rows)
        slope = single.slopes(targets, rows).reshape(_NUMBERS, -1).sum(1)
        given = f"{subject.inputs[1 - i].name} = {target:g}"
        yield Curve(subject.inputs[i].name, given, x, value, slope)


def _bounds(domain: Domain) -> tuple[float, float] | None:
    if domain.kind == "range":
        return domain.low, domain.high
    return _BOUNDS.get(domain.kind)
