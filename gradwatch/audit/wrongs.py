"""Who made wrong derivatives: a line, another input's gradient, a factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwatch.audit.alone import wrong_alone
from gradwatch.audit.backward import returned_at
from gradwatch.audit.evaluation import Evaluation
from gradwatch.audit.lines import Compared, compare
from gradwatch.audit.points import apart
from gradwatch.audit.running import running
from gradwatch.audit.stencils import WRONG
from gradwatch.audit.subject import Subject
from gradwatch.audit.traced import chosen, passes_of, stops, stops_of
from gradwatch.provenance.paths import custom_gradient
from gradwatch.reports import Source

__all__ = ["Wrongs"]

_ALIKE = 1e-2
"""Ratios that differ by less, relatively, are the same factor."""

_SHARED = 8
"""Derivatives that are compared before two inputs are called exchanged."""

_LINES = 8
"""So many lines of backward passes are tried without them."""


class Wrongs:
    """Wrong derivatives of one input.

    Args:
        subject: whose.
        made: its evaluation.
        each: all lines.
        bad: those that are wrong, maybe at points nearby.
        i: number of the input.
    """

    def __init__(
        self, subject: Subject, made: Evaluation, each: Compared, bad: Compared,
        i: int,
    ) -> None:  # fmt: skip
        self._subject, self._made = subject, made
        self._each, self._bad, self._i = each, bad, i

    def ratio(self) -> float | None:
        """The factor by which all are wrong, `None` if there is none."""
        bad = self._bad
        if not (bad.claimed != 0).any():
            return 0.0
        told = np.isfinite(bad.slopes) & (bad.slopes != 0)
        ratios = bad.claimed[told] / bad.slopes[told]
        if not len(ratios) or not told.all():
            return None
        middle = float(np.median(ratios))
        if np.abs(ratios - middle).max() > _ALIKE * abs(middle):
            return None
        return -1.0 if abs(middle + 1) < _ALIKE else middle

    def stopped(self) -> bool:
        """Whether all would be right without a `stop_gradient`."""
        return self._heals(lambda graph: chosen(graph, stops))

    def exchanged(self) -> str:
        """The other input whose slopes these gradients are, `""` if none."""
        own = self._numbers(self._i, self._each.claimed)
        for j in self._subject.trained:
            others = self._numbers(j, self._each.slopes)
            shared = [key for key in own if key in others]
            if j == self._i or len(shared) < _SHARED:
                continue
            a, b = (np.array([c[k] for k in shared]) for c in (own, others))
            near = np.abs(a - b) <= _ALIKE * (np.abs(b) + np.abs(b).max())
            if near.all():
                return self._subject.inputs[j].name
        return ""

    def _numbers(self, j: int, values: Any) -> dict[tuple[int, int], float]:
        """Finite derivatives by point and place in an input, one each."""
        own = self._each.lines
        start = self._made.slices[j].start
        chosen = (own.inputs == j) & (own.places >= 0)
        return {
            (int(own.points[q]), int(own.places[q]) - start): values[q]
            / own.width[q]
            for q in np.flatnonzero(chosen & np.isfinite(values))
        }

    def _heals(self, opened: Callable[[Any], list[Any]]) -> bool:
        """Whether all would be right if some operations changed nothing."""
        bad = self._bad
        try:
            slopes = self._made.through(
                bad.drawn.vectors, bad.drawn.upstream, opened
            )
        except Exception:  # whatever TensorFlow raises
            return False
        again = compare(self._made, bad.drawn, bad.lines, slopes)
        return bool((again.verdicts != WRONG).all())

    def line(self, check: str) -> Source | None:
        """The user's line that is to blame."""
        subject, training = self._subject, self._made.training
        if check == "detached_part":
            return self._only(stops_of(subject, training), stops)
        sign = self.ratio() == -1
        lines = passes_of(subject, training, self._i, sign=sign)
        line = self._only(lines, custom_gradient)
        if line is None:
            return self._alone()
        return returned_at(line) if self.exchanged() else line

    def _only(
        self, lines: dict[Source, list[int]], wanted: Callable[[Any], bool]
    ) -> Source | None:
        """The one line without whose operations all would be right."""

        def of(line: Source) -> Callable[[Any], list[Any]]:
            return lambda graph: [chosen(graph, wanted)[k] for k in lines[line]]

        few = list(lines)[:_LINES] if len(lines) > 1 else []
        healing = (line for line in few if self._heals(of(line)))
        return next(healing, next(iter(lines), None))

    def _alone(self) -> Source | None:
        """The line of an operation whose own derivative is wrong."""
        run = running(self._subject, self._made.dtype, self._made.training)
        if run is None or run.graph is None:
            return None
        vector = self._bad.drawn.vectors[self._bad.lines.points[0]]
        return wrong_alone(run, apart(self._subject, self._made, vector))
