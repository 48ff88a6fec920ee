"""Components: do the parts of a loss leave room for each other?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.parts import XRAYS, Look, Looks, Part, siblings

__all__ = ["ConflictingComponents", "DominantComponent"]

_OUTPUTS, _TERMS = 30.0, 100.0
_HEAVY = 10.0
_LONGER = 3.0
_LATE = 100
_IDLE = 0.9
_GAINED = 0.5
_FLAT = 0.97
_SPREAD = math.sqrt(0.05)


class DominantComponent:
    """One part of the loss takes nearly all of the gradient from another.

    Definition: two parts of the same whole; the one that is dominated is a
    compiled loss, or a term that has at most a tenth of the other's weight; the
    dominating one is a compiled loss of another output, a loss that a layer
    adds, or such a term with a weight above 1. In the last three X-rays, the
    last after a third of the planned steps and step 100, its gradient is at
    least 30 times as long (100 for terms that the user has weighed), and the
    dominated part has not become a tenth better in between (mean of the last 32
    steps; a compiled loss not since the first 16 steps either), nor better than
    97 % of `component_constant_loss` where that is known. Or a layer's loss has
    won already: it had three times the gradient in the first X-ray and has lost
    90 % since, or holds the balance (cosine below -0.8), while the compiled
    loss is that of a constant in the last three X-rays. Where that is not
    known, predictions vary over the examples by less than 0.22 of what targets
    do: the variance of the best predictions is the part of the targets' that
    they explain, so these explain less than 5 %. Or a term with a weight
    of 10 or more holds the balance, and the other has not become a tenth better
    since the first 16 steps; or it still has three times the gradient and has
    fallen by half, the other has not, and predictions are as good as constant
    by their variance. Threshold: gradients of batches scatter by about a
    third of their length (32 examples), so 1/30 is far below the noise. A large
    share alone is no fault: a crossentropy outweighs a mild penalty, and
    should. Silent for resumed runs.
    Told once.
    """

    name = "dominant_component"
    severity: Severity = "warning"
    needs = ("loss_component",)
    meaning = "One part of the loss outweighs another, which learns nothing."
    advice = (
        "Lower the weight of the part that dominates until the gradients are "
        "of a size, or scale what it compares."
    )

    def __init__(self) -> None:
        self._looks = Looks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._looks.begin(schema)
        self._layers = [layer.path for layer in anatomy.layers]
        self._resumed = anatomy.resumed_from != ""
        self._from = max(_LATE, anatomy.planned_steps / 3)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for look in self._looks.take(record):
            if self._told or self._resumed or look.step < self._from:
                continue
            if len(self._looks.seen) >= XRAYS:
                yield from self._judge(look)

    def _judge(self, look: Look) -> Iterator[Finding]:
        for pair in siblings(list(look.parts), self._layers):
            for a, b in (pair, pair[::-1]):
                if not self._told and self._dominates(look, a, b):
                    self._told = True
                    yield self._finding(look, a, b)

    def _dominates(self, look: Look, a: str, b: str) -> bool:
        least = self._least(look, a, b)
        if not least:
            return False
        last, rest = self._looks.seen[-XRAYS:], look.parts[b]
        idle = self._looks.idle(b)
        if least == _OUTPUTS:
            idle &= rest.last >= _IDLE * rest.first
        flat = [
            each.parts[b].last >= _FLAT * each.parts[b].constant
            for each in last
            if not math.isnan(each.parts[b].constant)
        ]
        ratios = [each.ratio(a, b) for each in last]
        if min(ratios) >= least and idle and all(flat):
            return True
        balance = all(
            e.cosine(a, b) <= -0.8 and e.ratio(a, b) >= 0.3 for e in last
        )
        mine = look.parts[a]
        if least == _TERMS:
            heavy = mine.weight >= _HEAVY
            vain = idle and rest.last >= _IDLE * rest.first
            pays = mine.last <= _GAINED * mine.first and min(ratios) >= _LONGER
            pays &= rest.last > _GAINED * rest.first
            if not heavy:
                return False
            return (balance and vain) or (pays and _constant(last))
        if not self._added(a):
            return False
        if flat and not (len(flat) == XRAYS and all(flat)):
            return False
        if not flat and not _constant(last):
            return False
        won = self._looks.seen[0].ratio(a, b) >= _LONGER
        won &= 0 < mine.last <= 0.1 * mine.first
        return won or balance

    def _least(self, look: Look, a: str, b: str) -> float:
        """From which ratio on `a` dominates `b`, 0 if it never does."""
        mine, other = look.parts[a].weight, look.parts[b].weight
        if mine > 1 and not other > 0.1 * mine:
            return _TERMS
        if mine > 1 and math.isnan(other) and not self._added(b):
            return _TERMS
        outputs = a.endswith("_loss") and b.endswith("_loss")
        if "/" not in b and not self._added(b) and self._added(a):
            return _OUTPUTS
        return _OUTPUTS if outputs and not self._added(b) else 0.0

    def _added(self, path: str) -> bool:
        """Whether a layer adds it."""
        return path in self._layers or path.rpartition("/")[0] in self._layers

    def _finding(self, look: Look, a: str, b: str) -> Finding:
        a = _whole(look, a)
        mine, other = look.parts[a], look.parts[b]
        first = self._looks.seen[-XRAYS].step
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=a,
            first_step=first,
            last_step=look.step,
            evidence={
                "dominated": b,
                "gradient_norm": mine.gradient,
                "dominated_gradient_norm": other.gradient,
                "dominated_loss_first": other.first,
                "dominated_loss": other.last,
                "cosine": look.cosine(a, b),
            },
            causes=("component_weight",),
            message=(
                f"`{a}` dominates `{b}`: {self._how(look, a, b)}. `{b}` is "
                f"{other.last:.4g} at step {look.step}; it was "
                f"{other.first:.4g} in the first steps."
            ),
            advice=self.advice,
        )

    def _how(self, look: Look, a: str, b: str) -> str:
        """By what `a` dominates: its gradient now, once, or its direction."""
        start, mine = self._looks.seen[0], look.parts[a]
        now, then = look.ratio(a, b), start.ratio(a, b)
        if now >= _LONGER:
            return f"its gradient is {now:.3g} times as long"
        if then >= _LONGER:
            return (
                f"its gradient was {then:.3g} times as long at step "
                f"{start.step}, until it had fallen from {mine.first:.4g} to "
                f"{mine.last:.4g}"
            )
        return (
            "its gradient undoes the other one (they point apart, with a "
            f"cosine of {look.cosine(a, b):.2f})"
        )


class ConflictingComponents:
    """Two parts of the loss undo each other.

    Definition: in three X-rays in a row, the gradients of two parts of the same
    whole have a cosine of -0.9 or less and lengths within a factor of three,
    and neither part has become a tenth better in between (mean of the last 32
    steps), or half as large as in the first 16 steps. Threshold: near the
    optimum of a sum the gradients of its parts always cancel, in a penalty as
    in a variational autoencoder; only if nothing was gained on the way are they
    at odds. Directions of gradients that have nothing to do with each other
    scatter around 0 by one over the root of the number of weights, so -0.9 is
    no accident. Told once for each pair.
    """

    name = "conflicting_components"
    severity: Severity = "info"
    needs = ("loss_component",)
    meaning = "Two parts of the loss pull against each other."
    advice = (
        "Check the sign and the targets of both; if both are meant, decide by "
        "their weights which one gives way."
    )

    def __init__(self) -> None:
        self._looks = Looks()
        self._told: set[tuple[str, str]] = set()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._looks.begin(schema)
        self._layers = [layer.path for layer in anatomy.layers]

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for look in self._looks.take(record):
            last = self._looks.seen[-XRAYS:]
            for pair in siblings(list(look.parts), self._layers):
                if len(last) < XRAYS or pair in self._told:
                    continue
                against = all(_against(each, *pair) for each in last)
                if against and all(self._vain(look, path) for path in pair):
                    self._told.add(pair)
                    yield self._finding(*pair)

    def _vain(self, look: Look, path: str) -> bool:
        """Whether a part gains nothing, and has not gained much before."""
        part = look.parts[path]
        return self._looks.idle(path) and part.last >= _GAINED * part.first

    def _finding(self, a: str, b: str) -> Finding:
        last = self._looks.seen[-XRAYS:]
        cosines = [each.cosine(a, b) for each in last]
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=f"{a}|{b}",
            first_step=last[0].step,
            last_step=last[-1].step,
            evidence={
                "cosines": cosines,
                "gradient_norms": [p.gradient for p in _pair(last[-1], a, b)],
            },
            causes=("wrong_sign", "component_weight"),
            message=(
                f"`{a}` and `{b}` pull in opposite directions: the cosine of "
                f"their gradients was {cosines[0]:.2f} at step {last[0].step} "
                f"and is {cosines[-1]:.2f} at step {last[-1].step}, and "
                "neither becomes better."
            ),
            advice=self.advice,
        )


def _whole(look: Look, path: str) -> str:
    """Returns the part inside of a part that makes all of its gradient."""
    inside = [p for p in look.parts if p.startswith(f"{path}/")]
    for part in inside:
        same = abs(look.ratio(part, path) - 1) < 0.01
        if same and look.cosine(path, part) > 0.99:
            return part
    return path


def _constant(looks: list[Look]) -> bool:
    """Whether predictions explain next to nothing in each X-ray."""
    return all(look.spread < _SPREAD for look in looks)


def _pair(look: Look, a: str, b: str) -> tuple[Part, Part]:
    return look.parts[a], look.parts[b]


def _against(look: Look, a: str, b: str) -> bool:
    """Whether two gradients of a size point away from each other."""
    return look.cosine(a, b) <= -0.9 and 1 / 3 <= look.ratio(a, b) <= 3
