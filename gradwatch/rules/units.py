"""Units that say nothing any more: dead ones and saturated ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gradwatch.records import (
    Anatomy,
    Finding,
    Layer,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.evidence import Headroom, blind, owner
from gradwatch.rules.rows import Columns, Row
from gradwatch.rules.wording import listed

__all__ = ["DeadUnits", "SaturatedUnits"]

_TWO_SIDED = ("tanh", "hard_tanh", "softsign")
_BOUNDED = ("sigmoid", "hard_sigmoid", *_TWO_SIDED)
_NOT_RELU = ("", "linear", "softmax", "log_softmax", *_BOUNDED)


class _Seen(NamedTuple):
    """X-rays in a row at which a layer was wrong."""

    first: int
    times: int
    value: float


def _places(anatomy: Anatomy) -> dict[str, int]:
    """Where each layer with weights comes; those of nested models too."""
    places: dict[str, int] = {}
    for i, variable in enumerate(anatomy.variables):
        places.setdefault(owner(variable.path), i)
    return places


class _Streaks:
    """Counts X-rays in a row, layer by layer."""

    def __init__(self) -> None:
        self.seen: dict[str, _Seen] = {}

    def take(self, step: int, values: dict[str, float]) -> None:
        """Takes the layers that are wrong at this X-ray; all others end."""
        self.seen = {
            path: _Seen(before.first, before.times + 1, value)
            for path, value in values.items()
            for before in [self.seen.get(path, _Seen(step, 0, 0.0))]
        }

    def lasting(self, count: int) -> dict[str, _Seen]:
        """Returns the layers that were wrong `count` times in a row."""
        return {p: s for p, s in self.seen.items() if s.times >= count}


class DeadUnits:
    """Units of a ReLU-like layer are silent for all samples, nearly all of it.

    Definition: `layer_silent_ratio` is 1 at 2 X-rays in a row, and gradients of
    the layer's own weights, if it has any, are exactly 0: nothing goes through.
    Or it is at least 0.9 at 3 X-rays in a row, in batches
    that cannot be too small to tell: of outputs that are not negative, at least
    `f = mean^2 / (mean^2 + std^2)` are not 0 (Cauchy and Schwarz); if all units
    fired equally often, a share of `exp(-f * examples)` would be silent by
    chance, which must be below 5 %, `f * examples >= 3`. Top-k codes and other
    sparse layers do not get there. Both need a model that has learned at most a
    tenth of what it could (`Headroom`) and inputs that are not all the same:
    who learns with few units needs no more. Told once for each layer; the first
    dead one is named.
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
    _FIRED = 3.0

    def __init__(self) -> None:
        self._headroom = Headroom()
        self._all, self._many = _Streaks(), _Streaks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        self._headroom.begin(schema)
        self._layers = [layer for layer in anatomy.layers if _rectified(layer)]
        self._places = _places(anatomy)
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
                {p: s for p, s in silent.items() if self._surely(row, p)},
            )
            dead = self._all.lasting(2) or self._many.lasting(3)
            if dead:
                self._told = True
                yield self._finding(row, dead, left)

    def _silent(self, row: Row, path: str) -> float:
        return self._columns.get(row, "layer_silent_ratio", path)

    def _closed(self, row: Row, path: str, silent: float) -> bool:
        """Whether nothing goes through this layer, in either direction."""
        return silent == 1.0 and all(
            self._columns.get(row, "variable_gradient_norm", variable) == 0.0
            for variable in self._own.get(path, ())
        )

    def _surely(self, row: Row, path: str) -> bool:
        """Whether sparse units would have fired in a batch as large as this."""
        mean = self._columns.get(row, "layer_mean", path)
        std = self._columns.get(row, "layer_std", path)
        power = mean**2 + std**2
        fired = mean**2 / power if power > 0 else 1.0
        return fired * self._columns.get(row, "examples") >= self._FIRED

    def _finding(
        self, row: Row, dead: dict[str, _Seen], left: float
    ) -> Finding:
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


class SaturatedUnits:
    """The bounded units of a hidden layer are at their bounds all the time.

    Definition: at 3 X-rays in a row, at least 90 % of the outputs of a hidden
    layer with sigmoid, tanh or the like are within 1 % of the range of a bound
    (`layer_bound_ratio`), where the derivative has fallen to 4 % of its largest
    or less; at both bounds, the standard deviation being a quarter of the range
    at least, or nearly all of the gradient of the layer's weights is exactly 0.
    Gates that are meant to be shut are at one bound and do neither. The model
    has learned half of what it could at most (`Headroom`); where that is not
    known from the targets, a tenth, and its gradients must be 0. Threshold:
    with 90 % at the bounds the mean derivative is below 0.14 of its largest; a
    layer that starts as usual has 5 % there. Never the output: the layer of the
    last weights, and those that are the predictions by mean and deviation. Told
    once.
    """

    name = "saturated_units"
    severity: Severity = "warning"
    needs = ("loss", "layer_mean", "layer_std", "variable_gradient_norm")
    meaning = "Bounded activations are at their bounds for nearly all samples."
    advice = (
        "Scale the inputs of this layer to about 1 (standardise the data, or "
        "normalise in front of it) and start with smaller weights."
    )
    _BOUND = 0.9
    _LEFT = 0.5
    _UNKNOWN = 0.9
    _LASTS = 3
    _ZEROS = 0.9

    def __init__(self) -> None:
        self._headroom = Headroom()
        self._streaks = _Streaks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        self._headroom.begin(schema)
        self._places = _places(anatomy)
        measured = schema.columns("variable_gradient_norm")
        paths = [v.path for v in anatomy.variables if v.path in measured]
        outer = owner(paths[-1]) if paths else ""
        self._own: dict[str, list[str]] = {}
        for path in measured:
            self._own.setdefault(owner(path), []).append(path)
        self._layers = [
            layer
            for layer in anatomy.layers
            if layer.activation in _BOUNDED
            and layer.path != outer
            and layer.path in self._own
        ]

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row, left in self._headroom.xrays(record):
            if self._told:
                return
            wrong = {
                layer.path: self._bound(row, layer.path)
                for layer in self._layers
                if self._shut(row, layer, left)
            }
            self._streaks.take(row.step, wrong)
            lasting = self._streaks.lasting(self._LASTS)
            if lasting:
                self._told = True
                yield self._finding(row, lasting, left)

    def _bound(self, row: Row, path: str) -> float:
        return self._columns.get(row, "layer_bound_ratio", path)

    def _shut(self, row: Row, layer: Layer, left: float) -> bool:
        """Whether a hidden layer is at its bounds, and that matters."""
        if not self._bound(row, layer.path) >= self._BOUND:
            return False
        answers = self._columns.all(row, "component_constant_loss")
        known = any(math.isfinite(value) for value in answers.values())
        if not left >= (self._LEFT if known else self._UNKNOWN):
            return False
        mean = self._columns.get(row, "layer_mean", layer.path)
        std = self._columns.get(row, "layer_std", layer.path)
        size = 2.0 if layer.activation in _TWO_SIDED else 1.0
        zeros = [
            self._columns.get(row, "variable_zero_gradient_ratio", path)
            for path in self._own[layer.path]
        ]
        both = known and std >= size / 4
        shut = both or min(zeros) >= self._ZEROS
        return shut and not self._predicts(row, mean, std)

    def _predicts(self, row: Row, mean: float, std: float) -> bool:
        """Whether a layer's outputs are predictions, by their statistics."""
        means = self._columns.all(row, "batch_mean")
        stds = self._columns.all(row, "batch_std")
        return any(
            math.isclose(mean, means[name], rel_tol=1e-3, abs_tol=1e-6)
            and math.isclose(std, stds[name], rel_tol=1e-3, abs_tol=1e-6)
            for name in means
            if name.split("/")[0] == "predictions"
        )

    def _finding(
        self, row: Row, lasting: dict[str, _Seen], left: float
    ) -> Finding:
        paths = sorted(lasting, key=lambda p: self._places[p])
        path = paths[0]
        seen = lasting[path]
        which = f"; so are those of {listed(paths[1:])}" if paths[1:] else ""
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=path,
            first_step=seen.first,
            last_step=row.step,
            evidence={
                "bound_ratio": {p: s.value for p, s in lasting.items()},
                "xrays": seen.times,
                "zero_gradient_ratio": {
                    p: self._columns.get(row, "variable_zero_gradient_ratio", p)
                    for p in self._own[path]
                },
                "left_to_learn": left,
            },
            causes=("saturation", "unscaled_input", "initialisation"),
            message=(
                f"{seen.value:.0%} of the outputs of {path} are at their "
                f"bounds, at {seen.times} X-rays in a row from step "
                f"{seen.first} to {row.step}{which}. There the derivative is "
                "nearly 0, so that hardly a gradient reaches the weights."
            ),
            advice=self.advice,
        )


def _rectified(layer: Layer) -> bool:
    return layer.kind == "ReLU" or layer.activation not in _NOT_RELU
