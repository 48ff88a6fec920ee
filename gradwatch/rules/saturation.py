"""Units that are at their bounds, where there is no slope."""

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
    Seen,
    Streaks,
    kernels,
    owned,
    owner,
    places,
    plan,
)
from gradwatch.rules.headroom import Headroom, Xray
from gradwatch.rules.wording import listed

__all__ = ["SaturatedUnits"]

_TWO_SIDED = ("tanh", "hard_tanh", "softsign")
_BOUNDED = ("sigmoid", "hard_sigmoid", *_TWO_SIDED)


class SaturatedUnits:
    """The bounded units of a hidden layer are at their bounds all the time.

    Definition: at 3 X-rays in a row, at least 90 % of the outputs of a hidden
    layer with sigmoid, tanh or the like are within 1 % of the range of a bound
    (`layer_bound_ratio`), where the derivative has fallen to 4 % of its largest
    or less; at both bounds, the standard deviation being a quarter of the range
    at least, or nearly all of the gradient of the layer's weights is exactly 0.
    Gates that are meant to be shut are at one bound and do neither. The model
    has learned half of what it could at most (`Headroom`); where that is not
    known from the targets, a tenth, and its gradients must be 0. Or the layer
    was like that at all X-rays so far, and stays as it began: all planned steps
    as long as this one would move its kernel by less than 1 %, while they move
    something else by more. Threshold: with 90 % at the bounds the mean
    derivative is below 0.14 of its largest; a layer that starts as usual has
    5 % there. Never the output: the layer of the last weights, and those that
    are the predictions by mean and deviation. Told once.
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
    _MOVED = 0.01

    def __init__(self, headroom: Headroom | None = None) -> None:
        self._headroom = headroom or Headroom()
        self._streaks = Streaks()
        self._open: set[str] = set()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy = anatomy
        self._kernels = set(kernels(anatomy, schema))
        self._headroom.begin(schema)
        self._places = places(anatomy)
        self._own = owned(schema)
        measured = schema.columns("variable_gradient_norm")
        paths = [v.path for v in anatomy.variables if v.path in measured]
        outer = owner(paths[-1]) if paths else ""
        self._layers = [
            layer
            for layer in anatomy.layers
            if layer.activation in _BOUNDED
            and layer.path != outer
            and layer.path in self._own
        ]

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for xray in self._headroom.xrays(record):
            if self._told:
                return
            self._open |= {
                layer.path
                for layer in self._layers
                if not self._bound(xray, layer.path) >= self._BOUND
            }
            wrong = {
                layer.path: self._bound(xray, layer.path)
                for layer in self._layers
                if self._shut(xray, layer)
            }
            self._streaks.take(xray.step, wrong)
            lasting = self._streaks.lasting(self._LASTS)
            if lasting:
                self._told = True
                yield self._finding(xray, lasting)

    def _bound(self, xray: Xray, path: str) -> float:
        return xray.get("layer_bound_ratio", path)

    def _shut(self, xray: Xray, layer: Layer) -> bool:
        """Whether a hidden layer is at its bounds, and that matters."""
        if not self._bound(xray, layer.path) >= self._BOUND:
            return False
        answers = xray.all("component_constant_loss")
        known = any(math.isfinite(value) for value in answers.values())
        limit = self._LEFT if known else self._UNKNOWN
        if not (xray.left >= limit or self._stays(xray, layer.path)):
            return False
        mean = xray.get("layer_mean", layer.path)
        std = xray.get("layer_std", layer.path)
        size = 2.0 if layer.activation in _TWO_SIDED else 1.0
        zeros = [
            xray.get("variable_zero_gradient_ratio", path)
            for path in self._own[layer.path]
        ]
        both = known and std >= size / 4
        shut = both or min(zeros) >= self._ZEROS
        return shut and not self._predicts(xray, mean, std)

    def _stays(self, xray: Xray, path: str) -> bool:
        """Whether a layer began at its bounds and does not get away."""
        steps = plan(self._anatomy, xray.step)
        moved = {
            variable: xray.moved(variable) * steps
            for paths in self._own.values()
            for variable in paths
        }
        own = [moved[v] for v in self._own[path] if v in self._kernels]
        still = bool(own) and max(own) < self._MOVED
        moving = any(ratio >= self._MOVED for ratio in moved.values())
        return path not in self._open and still and moving

    def _predicts(self, xray: Xray, mean: float, std: float) -> bool:
        """Whether a layer's outputs are predictions, by their statistics."""
        means = xray.all("batch_mean")
        stds = xray.all("batch_std")
        return any(
            math.isclose(mean, means[name], rel_tol=1e-3, abs_tol=1e-6)
            and math.isclose(std, stds[name], rel_tol=1e-3, abs_tol=1e-6)
            for name in means
            if name.split("/")[0] == "predictions"
        )

    def _finding(self, xray: Xray, lasting: dict[str, Seen]) -> Finding:
        paths = sorted(lasting, key=lambda p: self._places[p])
        path = paths[0]
        seen = lasting[path]
        which = f"; so are those of {listed(paths[1:])}" if paths[1:] else ""
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=path,
            first_step=seen.first,
            last_step=xray.step,
            evidence={
                "bound_ratio": {p: s.value for p, s in lasting.items()},
                "xrays": seen.times,
                "zero_gradient_ratio": {
                    p: xray.get("variable_zero_gradient_ratio", p)
                    for p in self._own[path]
                },
                "left_to_learn": xray.left,
            },
            causes=("saturation", "unscaled_input", "initialisation"),
            message=(
                f"{seen.value:.0%} of the outputs of {path} are at their "
                f"bounds, at {seen.times} X-rays in a row from step "
                f"{seen.first} to {xray.step}{which}. There the derivative is "
                "nearly 0, so that hardly a gradient reaches the weights."
            ),
            advice=self.advice,
        )
