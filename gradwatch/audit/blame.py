"""What a wrong gradient is like, and who made it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwatch.audit.evaluation import Evaluation
from gradwatch.audit.lines import Compared
from gradwatch.audit.points import nested
from gradwatch.audit.report import AuditFinding
from gradwatch.audit.stencils import OUTSIDE, UNJUDGED
from gradwatch.audit.subject import Subject
from gradwatch.audit.wrongs import Wrongs

__all__ = ["found_in"]

_DOWNHILL = 0.7
"""Cosine of gradient and slopes above which training goes the right way."""

_FIX = "Derive it once more, or leave it to TensorFlow."
_POINT = (
    "Nothing, unless such values are usual in the data (zeros after a ReLU, "
    "say)."
)
_STEP = (
    "Nothing, if it is meant: the estimator is biased, so keep its range "
    "narrow and its learning rate low."
)
_STOP = (
    "Nothing, if this part is meant to be a constant; else remove the "
    "`stop_gradient`."
)


def found_in(
    subject: Subject, made: Evaluation, each: Compared, bad: Compared, i: int,
    *, isolated: bool,
) -> AuditFinding:  # fmt: skip
    """Returns what to say of wrong derivatives.

    Args:
        subject: whose.
        made: its evaluation.
        each: all lines.
        bad: those that are wrong, maybe at points nearby.
        i: number of the input.
        isolated: whether they are wrong at single points only.
    """
    name = subject.inputs[i].name
    case = _Case(subject, made, each, bad, i)
    own = case.own
    if isolated:
        return case.told(
            "wrong_at_point", "info",
            f"At single points the gradient with respect to `{name}` is not "
            f"the slope of the value, though it is beside them{case.at()}",
            _POINT,
        )  # fmt: skip
    if case.identity():
        return case.told(
            "changed_gradient", "info",
            f"The value is `{name}` itself, and its gradient is changed on "
            f"purpose{case.factor()}{case.at()}",
            "Nothing, if it is meant (gradient reversal, scaling, clipping).",
        )  # fmt: skip
    drawn = own.take(~own.drawn.special[own.lines.points])
    if drawn.flat.all():
        return case.told(
            "straight_through", "info",
            f"The value is a step function of `{name}`, whose slope is 0, and "
            f"its gradient another one: a straight-through estimator"
            f"{case.at()}",
            _STEP,
        )  # fmt: skip
    return _wrong(case, drawn, name)


def _wrong(case: _Case, drawn: Compared, name: str) -> AuditFinding:
    if case.wrongs.stopped():
        downhill = _cosine(drawn) >= _DOWNHILL
        return case.told(
            "detached_part", "info" if downhill else "warning",
            f"A `stop_gradient` keeps a part of the value out of the gradient "
            f"with respect to `{name}`"
            f"{'' if downhill else ', which no longer leads downhill'}"
            f"{case.at()}",
            _STOP,
        )  # fmt: skip
    bad = case.bad
    if bad.flat.all():
        return case.told(
            "wrong_gradient", "warning",
            f"Where the value does not depend on `{name}` its gradient is not "
            f"zero{case.at()}",
            f"{_FIX} If it is meant as a straight-through estimator, it is "
            "none elsewhere.",
        )  # fmt: skip
    other = case.wrongs.exchanged()
    which = f": it is that of `{other}`" if other else case.factor()
    return case.told(
        "wrong_gradient", "critical",
        f"The gradient with respect to `{name}` is not that of the value"
        f"{which}{case.at()}",
        "Return gradients in the order of the arguments." if other else _FIX,
    )  # fmt: skip


def _cosine(drawn: Compared) -> float:
    """Median over points of the cosine between gradient and slopes."""
    found = []
    for p in np.unique(drawn.lines.points):
        own = drawn.take((drawn.lines.points == p) & np.isfinite(drawn.slopes))
        width = own.lines.width
        a, b = own.claimed / width, own.slopes / width
        size = np.linalg.norm(a) * np.linalg.norm(b)
        found.append(float(a @ b / size) if size else 0.0)
    return float(np.median(found)) if found else 0.0


class _Case:
    """Wrong derivatives of one input."""

    def __init__(
        self, subject: Subject, made: Evaluation, each: Compared, bad: Compared,
        i: int,
    ) -> None:  # fmt: skip
        self.subject, self.made = subject, made
        self.own = each.take(each.lines.inputs == i)
        self.bad, self.i = bad, i
        self.wrongs = Wrongs(subject, made, each, bad, i)
        off = np.abs(bad.claimed - bad.slopes) / bad.lines.width
        largest = np.maximum(np.abs(bad.claimed), np.abs(bad.slopes))
        relative = off * bad.lines.width / np.maximum(largest, 1e-300)
        # Of errors alike in relation the one that weighs most.
        self.q = int(np.lexsort((off, np.round(relative, 2)))[-1])

    def told(
        self, check: str, severity: Any, message: str, advice: str
    ) -> AuditFinding:
        """Returns the finding, with the worst input and the user's line."""
        subject, made, q = self.subject, self.made, self.q
        line = self.wrongs.line(check)
        vector = self.bad.drawn.vectors[self.bad.lines.points[q]]
        values: dict[str, Any] = {
            "gradient": float(self.bad.claimed[q] / self.bad.lines.width[q]),
            "slope": float(self.bad.slopes[q] / self.bad.lines.width[q]),
        }
        if self._place():
            values = {"place": self._place(), **values}
        return AuditFinding(
            check=check,
            severity=severity,
            subject=subject.inputs[self.i].name,
            message=message,
            inputs=nested(subject, made, vector),
            values=values,
            source=line or subject.source,
            advice=advice,
        )

    def at(self) -> str:
        """Where it is worst, as the end of a sentence."""
        bad, q = self.bad, self.q
        width = bad.lines.width[q]
        where = f"at {self._place()}" if self._place() else "in a direction"
        wrong = int((self.own.verdicts >= OUTSIDE).sum())
        judged = int((self.own.verdicts != UNJUDGED).sum())
        return (
            f", {where} {bad.claimed[q] / width:.6g} instead of "
            f"{bad.slopes[q] / width:.6g} ({wrong} of {judged} derivatives)."
        )

    def factor(self) -> str:
        """The factor by which all are wrong, if there is one."""
        ratio = self.wrongs.ratio()
        if ratio is None:
            return ""
        if not ratio:
            return ": it is zero"
        if ratio == -1:
            return ": its sign is wrong"
        return f": it is {ratio:.4g} times what it should be"

    def identity(self) -> bool:
        """Whether the value is the input itself."""
        vectors = self.own.drawn.vectors[:4]
        part = vectors[:, self.made.slices[self.i]]
        results = self.made.outputs(vectors)
        return results.shape == part.shape and bool(np.all(results == part))

    def _place(self) -> list[int]:
        """Index of the worst number in its input; empty of a direction."""
        place = int(self.bad.lines.places[self.q])
        if place < 0:
            return []
        inside = place - self.made.slices[self.i].start
        shape = self.subject.inputs[self.i].domain.shape
        return [int(k) for k in np.unravel_index(inside, shape)]
