"""Units that say nothing any more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Layer,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.evidence import Seen, Streaks, owned, places
from gradwatch.rules.headroom import Headroom, Xray
from gradwatch.rules.wording import listed

__all__ = ["DeadUnits"]

_RECENT = 16
_LATER = (
    "learning_rate_high",
    "unscaled_target",
    "unscaled_input",
    "initialisation",
)
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


class _Zeros:
    """How long the gradients of each layer's weights have been exactly 0.

    Args:
        columns: path of a layer -> columns of its gradients' norms.
    """

    def __init__(self, columns: dict[str, list[int]]) -> None:
        self._columns = columns
        self._waiting = dict(columns)  # those of which none was other than 0
        self._first: dict[str, int] = {}
        self._began: int | None = None
        self._blocks: list[Block] = []  # those of the last few steps

    def take(self, block: Block) -> None:
        """Takes new rows."""
        if not len(block):
            return
        if self._began is None:
            self._began = int(block.steps[0])
        for path, columns in list(self._waiting.items()):
            other = (block.values[:, columns] != 0).any(1)
            if other.any():
                self._first[path] = int(block.steps[np.argmax(other)])
                del self._waiting[path]
        recent = block.steps[0] - _RECENT
        self._blocks = [b for b in self._blocks if b.steps[-1] > recent]
        self._blocks.append(block)

    def alive(self, path: str, step: int) -> bool:
        """Whether one was not 0, up to a step."""
        return self._first.get(path, step + 1) <= step

    def before(self, path: str, step: int) -> bool:
        """Whether all were 0 in this step and in those before it."""
        first = step - _RECENT + 1
        if self._began is None or self._began > first:
            return False
        for block in self._blocks:
            rows = (first <= block.steps) & (block.steps <= step)
            if (block.values[rows][:, self._columns[path]] != 0).any():
                return False
        return True


class DeadUnits:
    """Units of a ReLU-like layer are silent for all samples, nearly all of it.

    Definition: `layer_silent_ratio` is 1 at 2 X-rays in a row, and gradients of
    the layer's own weights, if it has any, are exactly 0: nothing goes through;
    one X-ray is enough if these were 0 in each of the last 16 steps. Or it is
    at least 0.9 at 3 X-rays in a row, and far more than chance: of outputs that
    are not negative, at least `f = mean^2 / (mean^2 + std^2)` are not 0 (Cauchy
    and Schwarz), so if all units fired equally often, a share of
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

    def __init__(self, headroom: Headroom | None = None) -> None:
        self._headroom = headroom or Headroom()
        self._all, self._many = Streaks(), Streaks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._headroom.begin(schema)
        self._layers = [layer for layer in anatomy.layers if _rectified(layer)]
        self._places = places(anatomy)
        self._own = owned(schema)
        columns = schema.columns("variable_gradient_norm")
        self._zeros = _Zeros(
            {
                layer: [columns[path] for path in paths]
                for layer, paths in self._own.items()
            }
        )

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if self._told or not isinstance(record, Block):
            return
        self._zeros.take(record)
        for xray in self._headroom.xrays(record):
            if self._told:
                return
            silent = self._silent(xray)
            closed = {
                p: s for p, s in silent.items() if self._closed(xray, p, s)
            }
            self._all.take(xray.step, closed)
            self._many.take(
                xray.step,
                {p: s for p, s in silent.items() if self._surely(xray, p, s)},
            )
            dead = self._all.lasting(2) or self._many.lasting(3)
            dead = dead or {
                path: self._all.seen[path]
                for path in closed
                if path in self._own and self._zeros.before(path, xray.step)
            }
            if dead:
                self._told = True
                yield self._finding(xray, dead)

    def _silent(self, xray: Xray) -> dict[str, float]:
        """Layers that are silent, nearly all of them, where it matters."""
        if not xray.left >= self._LEFT or xray.blind:
            return {}
        ratios = xray.all("layer_silent_ratio")
        return {
            layer.path: ratio
            for layer in self._layers
            for ratio in [ratios.get(layer.path, math.nan)]
            if ratio >= self._MOST
        }

    def _closed(self, xray: Xray, path: str, silent: float) -> bool:
        """Whether nothing goes through this layer, in either direction."""
        if silent < 1.0 or xray.answers:
            return False
        return all(
            xray.get("variable_gradient_norm", variable) == 0.0
            for variable in self._own.get(path, ())
        )

    def _surely(self, xray: Xray, path: str, silent: float) -> bool:
        """Whether far fewer units fire than if all fired equally often."""
        if silent == 1.0 and xray.answers:
            return False
        mean = xray.get("layer_mean", path)
        std = xray.get("layer_std", path)
        power = mean**2 + std**2
        fired = mean**2 / power if power > 0 else 1.0
        chance = -math.expm1(-fired * xray.get("examples"))
        return 1.0 - silent <= self._CHANCE * chance

    def _finding(self, xray: Xray, dead: dict[str, Seen]) -> Finding:
        last = len(self._places)
        paths = sorted(dead, key=lambda p: self._places.get(p, last))
        seen = dead[paths[0]]
        which = f"; so were those of {listed(paths[1:])}" if paths[1:] else ""
        when = f"at {seen.times} X-rays in a row, from step {seen.first} to "
        began = not self._zeros.alive(paths[0], xray.step)
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=paths[0],
            first_step=seen.first,
            last_step=xray.step,
            evidence={
                "silent_ratio": {p: s.value for p, s in dead.items()},
                "xrays": seen.times,
                "examples": xray.get("examples"),
                "left_to_learn": xray.left,
            },
            causes=(("initialisation", "unscaled_input") if began else _LATER),
            message=(
                f"{seen.value:.0%} of the units of {paths[0]} were 0 for every "
                f"sample {when if seen.times > 1 else 'at step '}{xray.step}"
                f"{which}. A unit that is 0 for all samples gets no gradient "
                "and cannot come back."
            ),
            advice=self.advice,
        )


def _rectified(layer: Layer) -> bool:
    return layer.kind == "ReLU" or layer.activation not in _NOT_RELU
