"""Depth: does the gradient reach the beginning of the model?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.evidence import kernels, owner, plan
from gradwatch.rules.headroom import Headroom, Xray

__all__ = ["VanishingGradient"]


class _Point(NamedTuple):
    """One layer of the profile.

    Attributes:
        path: its kernel's, or embedding's.
        error: root mean square of the gradient of its bias, which does not see
            the layer's inputs; of its kernel, where not all layers have one.
        moved: how far the step moved the kernel, by its own norm.
    """

    path: str
    error: float
    moved: float


class VanishingGradient:
    """The gradient fades on its way to the first layers, which hardly move.

    Definition: at 3 X-rays in a row, over the trained layers in call order: the
    error that reaches the first two is below 1e-3 of the last one's, and it
    falls from the last to the first all the way (never below a tenth of an
    earlier layer's); the error is the gradient's rms per element (of entries
    that are not 0) of biases, or of kernels where not all have a bias. The
    first two kernels would move by less than 1 % of their norm in the whole run
    if all its planned steps went the same way, while another variable would
    move by 1 % at least; the update ratio of the first has not grown tenfold
    since; and at least half of what can be learned is left (`Headroom`), nine
    tenths if predictions depend on the inputs by more than 1 %. Queries and
    keys of attention are no step in depth.
    Threshold: a sigmoid's derivative is at most 0.25, so five of them make
    1e-3; a usual initialisation keeps the gradient within a factor of 10 over
    any depth (Glorot and Bengio 2010), and Adam moves all layers by its rate
    however small their gradients are: there falling gradients are no fault.
    Told once.
    """

    name = "vanishing_gradient"
    severity: Severity = "warning"
    needs = (
        "loss",
        "variable_gradient_norm",
        "variable_weight_norm",
        "variable_update_norm",
    )
    meaning = "The gradient fades before it reaches the first layers."
    advice = (
        "Use ReLU with `he_normal`, a normalisation or connections past the "
        "layers between; an optimizer like Adam rescales what is left."
    )
    _LASTS = 3
    _FALL = 1e-3
    _STEADY = 0.1
    _MOVED = 0.01
    _LEFT = 0.5
    _MOST = 0.9
    _GROWN = 10.0

    def __init__(self, headroom: Headroom | None = None) -> None:
        self._headroom = headroom or Headroom()
        self._seen: list[tuple[int, float]] = []
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy = anatomy
        self._headroom.begin(schema)
        self._sizes = {v.path: math.prod(v.shape) for v in anatomy.variables}
        self._kernels = [
            path
            for path in kernels(anatomy, schema)
            if owner(path).split("/")[-1] not in ("query", "key")
        ]
        measured = schema.columns("variable_gradient_norm")
        self._all = list(measured)
        biases = [f"{owner(path)}/bias" for path in self._kernels]
        whole = set(biases) <= measured.keys()
        self._errors = biases if whole else self._kernels

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for xray in self._headroom.xrays(record):
            if self._told or len(self._kernels) < 3:
                return
            limit = self._MOST if xray.answers else self._LEFT
            if not (xray.left >= limit and self._starved(xray)):
                self._seen = []
                continue
            profile = [self._point(xray, i) for i in range(len(self._kernels))]
            if not self._steady(profile):
                self._seen = []
                continue
            self._seen.append((xray.step, profile[0].moved))
            before = self._seen[-self._LASTS :]
            grown = profile[0].moved > self._GROWN * before[0][1]
            if len(before) == self._LASTS and not grown:
                self._told = True
                yield self._finding(xray, profile, before[0][0])

    def _point(self, xray: Xray, place: int) -> _Point:
        path, error = self._kernels[place], self._errors[place]
        size = self._sizes[error]
        return _Point(path, xray.effective(error, size), xray.moved(path))

    def _starved(self, xray: Xray) -> bool:
        """Whether hardly anything reaches the first two, and others move."""
        steps = plan(self._anatomy, xray.step)
        first, second, last = (self._point(xray, i) for i in (0, 1, -1))
        starved = all(
            0.0 < point.error <= self._FALL * last.error
            and point.moved * steps < self._MOVED
            for point in (first, second)
        )
        return (
            starved
            and any(xray.moved(p) * steps >= self._MOVED for p in self._all)
            and not xray.blind
        )

    def _steady(self, profile: list[_Point]) -> bool:
        """Whether the error falls from the last layer to the first."""
        highest = 0.0
        for point in profile:
            if point.error < self._STEADY * highest:
                return False
            highest = max(highest, point.error)
        return True

    def _finding(
        self, xray: Xray, profile: list[_Point], first: int
    ) -> Finding:
        low, high = max(
            pairwise(profile),
            key=lambda pair: pair[1].error / max(pair[0].error, 1e-45),
        )
        steps = plan(self._anatomy, xray.step)
        start, end = profile[0], profile[-1]
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=start.path,
            first_step=first,
            last_step=xray.step,
            evidence={
                "profile": [list(point) for point in profile],
                "falls_most_between": [high.path, low.path],
                "planned_steps": steps,
                "left_to_learn": xray.left,
            },
            causes=("saturation", "initialisation"),
            message=(
                f"The gradient fades over {len(profile)} layers: per element "
                f"{end.error:.2g} at {end.path}, {start.error:.2g} at "
                f"{start.path}; it falls most from {high.path} to {low.path}. "
                f"In {steps} steps {start.path} would move by "
                f"{start.moved * steps:.1g} of its size."
            ),
            advice=self.advice,
        )
