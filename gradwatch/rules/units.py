"""Units that say nothing any more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradwatch.records import (
    Anatomy,
    Block,
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
    """How long the gradients of a layer's weights have been exactly 0."""

    def __init__(self) -> None:
        self.columns: list[int] = []
        self._other: list[int] = []  # steps in which one of them was not
        self._first: int | None = None
        self._began: int | None = None

    def take(self, block: Block) -> None:
        """Takes new rows."""
        if not len(block):
            return
        if self._began is None:
            self._began = int(block.steps[0])
        other = (block.values[:, self.columns] != 0).any(1)
        steps = block.steps[other].tolist()
        if self._first is None and steps:
            self._first = steps[0]
        self._other = [*self._other[-_RECENT:], *steps]

    def alive(self, step: int) -> bool:
        """Whether one was not 0, up to a step."""
        return self._first is not None and self._first <= step

    def before(self, step: int) -> bool:
        """Whether all were 0 in this step and in those before it."""
        first = step - _RECENT + 1
        known = self._began is not None and self._began <= first
        return known and not any(first <= s <= step for s in self._other)


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

    def __init__(self) -> None:
        self._headroom = Headroom()
        self._all, self._many = Streaks(), Streaks()
        self._zeros: dict[str, _Zeros] = {}
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        self._headroom.begin(schema)
        self._layers = [layer for layer in anatomy.layers if _rectified(layer)]
        self._places = places(anatomy)
        self._own: dict[str, list[str]] = {}
        self._zeros = {}
        for path, column in schema.columns("variable_gradient_norm").items():
            self._own.setdefault(owner(path), []).append(path)
            self._zeros.setdefault(owner(path), _Zeros()).columns.append(column)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if self._told or not isinstance(record, Block):
            return
        for zeros in self._zeros.values():
            zeros.take(record)
        for row, left in self._headroom.xrays(record):
            if self._told:
                return
            matters = left >= self._LEFT and not blind(self._columns, row)
            silent = {
                layer.path: self._silent(row, layer.path)
                for layer in self._layers
                if matters and self._silent(row, layer.path) >= self._MOST
            }
            closed = {
                p: s for p, s in silent.items() if self._closed(row, p, s)
            }
            self._all.take(row.step, closed)
            self._many.take(
                row.step,
                {p: s for p, s in silent.items() if self._surely(row, p, s)},
            )
            dead = self._all.lasting(2) or self._many.lasting(3)
            dead = dead or {
                path: self._all.seen[path]
                for path in closed
                if path in self._zeros and self._zeros[path].before(row.step)
            }
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
        if silent == 1.0 and answers(self._columns, row):
            return False
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
        which = f"; so were those of {listed(paths[1:])}" if paths[1:] else ""
        when = f"at {seen.times} X-rays in a row, from step {seen.first} to "
        zeros = self._zeros.get(paths[0])
        began = zeros is None or not zeros.alive(row.step)
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
            causes=(("initialisation", "unscaled_input") if began else _LATER),
            message=(
                f"{seen.value:.0%} of the units of {paths[0]} were 0 for every "
                f"sample {when if seen.times > 1 else 'at step '}{row.step}"
                f"{which}. A unit that is 0 for all samples gets no gradient "
                "and cannot come back."
            ),
            advice=self.advice,
        )


def _rectified(layer: Layer) -> bool:
    return layer.kind == "ReLU" or layer.activation not in _NOT_RELU
