"""Units that say nothing any more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradwatch.records import (
    Anatomy,
    Finding,
    Layer,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.evidence import (
    Headroom,
    Seen,
    Streaks,
    answers,
    blind,
    owner,
    places,
)
from gradwatch.rules.rows import Columns, Row
from gradwatch.rules.wording import listed

__all__ = ["DeadUnits"]

_NOT_RELU = (
    "",
    "linear",
    "softmax",
    "log_softmax",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "hard_tanh",
    "softsign",
)


class DeadUnits:
    """Units of a ReLU-like layer are silent for all samples, nearly all of it.

    Definition: `layer_silent_ratio` is 1 at 2 X-rays in a row, and gradients of
    the layer's own weights, if it has any, are exactly 0: nothing goes through.
    Or it is at least 0.9 at 3 X-rays in a row, and far more than chance: of
    outputs that are not negative, at least `f = mean^2 / (mean^2 + std^2)` are
    not 0 (Cauchy and Schwarz), so if all units fired equally often, a share of
    `1 - exp(-f * examples)` would fire in the batch; a fifth of that at most
    does. Top-k codes and other sparse layers fire as often as chance has it.
    Both need a model that has learned at most a tenth of what it could
    (`Headroom`) and inputs that are not all the same: who learns with few units
    needs no more. Nor does a dead branch matter while predictions depend on the
    inputs by way of others: where all units are silent, they must not. Told
    once; the first dead layer is named.
    """

    name = "dead_units"
    severity: Severity = "warning"
    needs = (
        "loss",
        "layer_silent_ratio",
        "layer_mean",
        "layer_std",
        "variable_gradient_norm",
    )
    meaning = "Units of a ReLU-like layer are 0 for all samples."
    advice = (
        "Lower the learning rate, start biases at 0, scale inputs and targets; "
        "`leaky_relu` or a normalisation in front keeps units alive."
    )
    _LEFT = 0.9
    _MOST = 0.9
    _CHANCE = 0.2

    def __init__(self) -> None:
        self._headroom = Headroom()
        self._all, self._many = Streaks(), Streaks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        self._headroom.begin(schema)
        self._layers = [layer for layer in anatomy.layers if _rectified(layer)]
        self._places = places(anatomy)
        self._own: dict[str, list[str]] = {}
        for path in schema.columns("variable_gradient_norm"):
            self._own.setdefault(owner(path), []).append(path)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row, left in self._headroom.xrays(record):
            if self._told:
                return
            matters = left >= self._LEFT and not blind(self._columns, row)
            silent = {
                layer.path: self._silent(row, layer.path)
                for layer in self._layers
                if matters and self._silent(row, layer.path) >= self._MOST
            }
            self._all.take(
                row.step,
                {p: s for p, s in silent.items() if self._closed(row, p, s)},
            )
            self._many.take(
                row.step,
                {p: s for p, s in silent.items() if self._surely(row, p, s)},
            )
            dead = self._all.lasting(2) or self._many.lasting(3)
            if dead:
                self._told = True
                yield self._finding(row, dead, left)

    def _silent(self, row: Row, path: str) -> float:
        return self._columns.get(row, "layer_silent_ratio", path)

    def _closed(self, row: Row, path: str, silent: float) -> bool:
        """Whether nothing goes through this layer, in either direction."""
        if silent < 1.0 or answers(self._columns, row):
            return False
        return all(
            self._columns.get(row, "variable_gradient_norm", variable) == 0.0
            for variable in self._own.get(path, ())
        )

    def _surely(self, row: Row, path: str, silent: float) -> bool:
        """Whether far fewer units fire than if all fired equally often."""
        mean = self._columns.get(row, "layer_mean", path)
        std = self._columns.get(row, "layer_std", path)
        power = mean**2 + std**2
        fired = mean**2 / power if power > 0 else 1.0
        chance = -math.expm1(-fired * self._columns.get(row, "examples"))
        return 1.0 - silent <= self._CHANCE * chance

    def _finding(self, row: Row, dead: dict[str, Seen], left: float) -> Finding:
        last = len(self._places)
        paths = sorted(dead, key=lambda p: self._places.get(p, last))
        seen = dead[paths[0]]
        which = f"; so are units of {listed(paths[1:])}" if paths[1:] else ""
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=paths[0],
            first_step=seen.first,
            last_step=row.step,
            evidence={
                "silent_ratio": {p: s.value for p, s in dead.items()},
                "xrays": seen.times,
                "examples": self._columns.get(row, "examples"),
                "left_to_learn": left,
            },
            causes=(
                "initialisation",
                "learning_rate_high",
                "unscaled_target",
                "unscaled_input",
            ),
            message=(
                f"{seen.value:.0%} of the units of {paths[0]} were 0 for every "
                f"sample at {seen.times} X-rays in a row, from step "
                f"{seen.first} to {row.step}{which}. A unit that is 0 for all "
                "samples gets no gradient and cannot come back."
            ),
            advice=self.advice,
        )


def _rectified(layer: Layer) -> bool:
    return layer.kind == "ReLU" or layer.activation not in _NOT_RELU
