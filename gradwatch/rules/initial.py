"""How weights begin: far too large, far too small, or at 0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
    Variable,
)
from gradwatch.rules.evidence import drawn, kernels, plan
from gradwatch.rules.headroom import Headroom, Xray
from gradwatch.rules.wording import listed

__all__ = ["BadInitialisation"]


class BadInitialisation:
    """Kernels begin with a scale that is off by decades, and it does harm.

    Definition: a scale is the rms of a kernel's entries at the start, `n` its
    inputs, `m` its units. Too large: kernels above 3 times He's `sqrt(2 / n)`
    amplify by a product of 100 or more, and the first loss, before any update,
    is 10 times the best constant answer's, or above 10 ln(m) for a
    cross-entropy, with the largest `m`: chance has ln(m). Too small: at 2
    X-rays in a row, kernels below a twentieth of Glorot's `sqrt(2 / (n + m))`,
    two or more, would not move by 1 % in all planned steps, or those that began
    as 0, one or more, still are 0 and have a gradient of exactly 0; something
    else moves, the inputs differ, predictions do not (by 1 %), and nine tenths
    of what can be learned are left (`Headroom`). A single head of 0 is fine: it
    has a gradient. Threshold: usual schemes are within these sqrt by a factor
    of 2; decades alone are no fault (a normalisation behind a kernel takes its
    scale out), so it needs the harm. Embeddings and recurrent kernels follow
    other laws. Told once.
    """

    name = "bad_initialisation"
    severity: Severity = "warning"
    needs = (
        "loss",
        "variable_gradient_norm",
        "variable_weight_norm",
        "variable_update_norm",
    )
    meaning = "Weights begin far too large, far too small, or as 0."
    advice = (
        "Use the default initialiser or `he_normal`: the standard deviation of "
        "a kernel should be about the square root of 2 over its inputs."
    )
    _LARGE = 3.0
    _GAIN = 100.0
    _LOSS = 10.0
    _SMALL = 0.05
    _MOVED = 0.01
    _LEFT = 0.9

    def __init__(self, headroom: Headroom | None = None) -> None:
        self._headroom = headroom or Headroom()
        self._first: tuple[int, float] | None = None
        self._seen: list[int] = []
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy = anatomy
        self._headroom.begin(schema)
        self._loss = schema.column("loss")
        found = set(kernels(anatomy, schema))
        chosen = [v for v in anatomy.variables if v.path in found]
        self._all = [v for v in anatomy.variables if v.trainable]
        self._kernels = [
            v for v in chosen if drawn(v.path) and math.isfinite(v.scale)
        ]
        gains = [max(_gain(v), 1.0) for v in self._kernels]
        self._gain = math.prod(g for g in gains if g > self._LARGE)
        self._small = [v for v in self._kernels if _share(v) < self._SMALL]

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block) or self._loss is None:
            return
        if len(record) and self._first is None:
            loss = float(record.values[0, self._loss])
            self._first = int(record.steps[0]), loss
            chance = self._chance()
            if self._large(chance):
                yield self._too_large(self._first[0], chance)
        for xray in self._headroom.xrays(record):
            constant = xray.constant()
            if self._large(constant):
                yield self._too_large(xray.step, constant)
            stuck = [v for v in self._small if self._stuck(xray, v)]
            enough = len(stuck) > 1 or any(v.scale == 0 for v in stuck)
            if enough and self._harmful(xray):
                self._seen.append(xray.step)
            else:
                self._seen = []
            if len(self._seen) >= 2 and not self._told:
                self._told = True
                yield self._too_small(xray, stuck)

    def _chance(self) -> float:
        """The loss of who knows nothing, if the loss is a cross-entropy."""
        if "crossentropy" not in str(self._anatomy.loss).lower():
            return 0.0
        units = [v.shape[-1] for v in self._kernels]
        return math.log(max([2, *units]))

    def _large(self, constant: float) -> bool:
        """Whether weights amplify, and the first loss shows it."""
        if self._told or self._first is None or constant <= 0.0:
            return False
        above = self._first[1] >= self._LOSS * constant
        return self._gain >= self._GAIN and above

    def _stuck(self, xray: Xray, variable: Variable) -> bool:
        path = variable.path
        if variable.scale == 0:
            signals = ("variable_gradient_norm", "variable_weight_norm")
            return all(xray.get(signal, path) == 0.0 for signal in signals)
        steps = plan(self._anatomy, xray.step)
        return xray.moved(path) * steps < self._MOVED

    def _harmful(self, xray: Xray) -> bool:
        """Whether nothing is learned, although something moves."""
        if not xray.left >= self._LEFT or xray.answers or xray.blind:
            return False
        steps = plan(self._anatomy, xray.step)
        return any(xray.moved(v.path) * steps >= self._MOVED for v in self._all)

    def _too_large(self, step: int, constant: float) -> Finding:
        assert self._first is not None
        self._told = True
        worst = max(self._kernels, key=_gain)
        first, loss = self._first
        return self._finding(
            worst,
            (first, step),
            {
                "loss": loss,
                "loss_of_a_constant": constant,
                "amplified_by": self._gain,
                **_scales(self._kernels),
            },
            f"{worst.path} begins with weights of {worst.scale:.2g}, "
            f"{_gain(worst):.3g} times what {_inputs(worst)} inputs ask for. "
            f"The first loss is {loss:.3g}, where a constant answer has "
            f"{constant:.2g}.",
        )

    def _too_small(self, xray: Xray, stuck: list[Variable]) -> Finding:
        worst = stuck[0]
        others = [v.path for v in stuck[1:]]
        also = f", and so do {listed(others)}" if others else ""
        return self._finding(
            worst,
            (self._seen[0], xray.step),
            {"left_to_learn": xray.left, **_scales(stuck)},
            f"{worst.path} begins with weights of {worst.scale:.2g}{also}; "
            f"{_inputs(worst)} inputs ask for {_usual(worst):.2g}. It passes "
            f"nothing on, and up to step {xray.step} it has hardly moved.",
        )

    def _finding(
        self,
        variable: Variable,
        steps: tuple[int, int],
        evidence: dict[str, Any],
        message: str,
    ) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=variable.path,
            first_step=steps[0],
            last_step=steps[1],
            evidence=evidence,
            causes=("initialisation",),
            message=message,
            advice=self.advice,
        )


def _inputs(variable: Variable) -> int:
    return math.prod(variable.shape[:-1])


def _gain(variable: Variable) -> float:
    """How much larger than by He's scheme a kernel begins."""
    return variable.scale / math.sqrt(2 / _inputs(variable))


def _usual(variable: Variable) -> float:
    """A kernel's scale by Glorot's scheme."""
    return math.sqrt(2 / (_inputs(variable) + variable.shape[-1]))


def _share(variable: Variable) -> float:
    return variable.scale / _usual(variable)


def _scales(variables: list[Variable]) -> dict[str, Any]:
    return {"scales": {v.path: v.scale for v in variables}}
