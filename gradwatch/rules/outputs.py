"""Outputs: can the last layer say what the loss and the targets ask for?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.compiled import (
    Compared,
    Field,
    activation,
    compared,
    field,
)
from gradwatch.rules.rows import Columns, Row, xrays
from gradwatch.rules.targets import misfit

__all__ = ["OutputMismatch"]

_BOUNDS = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, math.inf),
    "exponential": (0.0, math.inf),
    "elu": (-1.0, math.inf),
}
_ONE_SIDED = ("relu", "relu6", "softplus", "exponential")
_PROBABILITIES = ("binary", "rows", "classes")
_NEAR = 1e-3
_OUTSIDE = 0.01


class _Fault(NamedTuple):
    """What is wrong, and from how many X-rays in a row on it is certain."""

    xrays: int
    why: str
    advice: str


class OutputMismatch:
    """The last layer cannot say what the loss and the targets ask for.

    Definition: on X-rays in a row, with one of Keras' own losses whose targets
    fit it (see `target_mismatch`), one of these:

    - softmax on one unit: all predictions are exactly 1; or a categorical
      crossentropy on one unit, which is always 0. One X-ray.
    - A crossentropy without `from_logits` gets predictions beyond [0, 1] by
      0.01; it clips them, and has no gradient there. A categorical one divides
      by the sum first, so that only negative ones count. One X-ray.
    - A binary crossentropy of logits gets them from an activation that is
      never negative, so that no probability is below one half. Two X-rays.
    - A categorical crossentropy without `from_logits` gets the predictions of a
      softmax whose mean is one in a whole number, as it is of any, and less
      than a hundredth of their rows have a sum of 1: it runs over another axis
      than that of the classes. One X-ray.
    - Probabilities where logits are expected: `softmax(p)` of n probabilities
      p has losses from `ln(n + 1) - max p` to `ln(n + 1 + 0.72 max p) - min p`,
      since `1 + p + p^2 / 2 <= e^p <= 1 + p + (e - 2) p^2`. Median and largest
      example's loss must lie in it, while `max p >= 3 min p`, two X-rays in
      a row; for three classes and fewer and for sigmoids
      `max p >= 9 min p` and three X-rays. Keras passes a softmax by if it
      comes right before the loss: then losses are `-ln p`, and 16 examples
      fall into that narrow range with a chance below 0.001.
    - Targets beyond the bounds of the last activation by at least a quarter of
      their own range, in a loss that is a distance: no weights can reach
      them. Two X-rays; one if it is half of the range.

    With an unknown loss only the first one is told. Told once for each output.
    """

    name = "output_mismatch"
    severity: Severity = "warning"
    needs = ("batch_min", "batch_max")
    meaning = "The last layer does not fit the loss or the targets."
    advice = (
        "Use no activation for numbers and for losses `from_logits`, sigmoid "
        "for one probability, softmax for rows of them."
    )

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._count: dict[tuple[str, str], tuple[int, int]] = {}

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy, self._columns = anatomy, Columns(schema)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row in xrays(record):
            for pair in compared(self._anatomy, self._columns, row):
                if pair.predictions not in self._told:
                    yield from self._judge(pair, row)

    def _judge(self, pair: Compared, row: Row) -> Iterator[Finding]:
        y = field(self._columns, row, pair.targets)
        p = field(self._columns, row, pair.predictions)
        if misfit(pair, y, p) is not None:
            return
        faults = {
            "constant": _constant(pair, p, self._columns, row),
            "outside": _outside(pair, p),
            "axis": _axis(pair, p),
            "one_sided": _one_sided(pair, y, p),
            "twice": _twice(self._columns, pair, row, p),
            "bounds": _bounds(pair, y, p),
        }
        for kind, fault in faults.items():
            place = pair.predictions, kind
            if fault is None:
                self._count.pop(place, None)
                continue
            first, seen = self._count.get(place, (row.step, 0))
            self._count[place] = first, seen + 1
            if seen + 1 >= fault.xrays and pair.predictions not in self._told:
                self._told.add(pair.predictions)
                yield self._finding(pair, fault, first, row.step, y, p)

    def _finding(
        self,
        pair: Compared,
        fault: _Fault,
        first: int,
        last: int,
        y: Field,
        p: Field,
    ) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=pair.path,
            first_step=first,
            last_step=last,
            evidence={
                "loss": pair.name,
                "from_logits": pair.logits,
                "activation": activation(pair.layer),
                "predictions_min": p.min,
                "predictions_max": p.max,
                "targets_min": y.min,
                "targets_max": y.max,
            },
            causes=(),
            message=f"{fault.why} The loss is `{pair.name}`.",
            advice=fault.advice,
        )


def _range(field: Field) -> str:
    return f"go from {field.min:.4g} to {field.max:.4g}"


def _constant(
    pair: Compared, p: Field, columns: Columns, row: Row
) -> _Fault | None:
    kind = activation(pair.layer)
    if kind == "softmax" and p.min == p.max == 1 and p.unit_rows == 1:
        return _Fault(
            1,
            f"All predictions of {pair.path} are exactly 1: a softmax over one "
            "unit cannot say anything else.",
            "Use a sigmoid on one unit, or softmax on one unit for each class.",
        )
    loss = columns.get(row, "loss_component", pair.component)
    alone = pair.units == 1 and pair.kind in ("rows", "classes")
    if alone and abs(loss) < _NEAR:
        return _Fault(
            1,
            f"{pair.path} has one unit; over one class a categorical "
            "crossentropy is always 0.",
            "Use a binary crossentropy, or one unit for each class.",
        )
    return None


def _outside(pair: Compared, p: Field) -> _Fault | None:
    if pair.logits or pair.kind not in _PROBABILITIES:
        return None
    above = p.max > 1 + _OUTSIDE and pair.kind != "rows"
    if not (p.min < -_OUTSIDE or above):
        return None
    return _Fault(
        1,
        f"Predictions of {pair.path} {_range(p)}, and the loss expects "
        "probabilities: it clips the others, which then have no gradient.",
        "Give the loss `from_logits=True`, or the last layer a sigmoid or "
        "softmax.",
    )


def _axis(pair: Compared, p: Field) -> _Fault | None:
    several = pair.kind in ("rows", "classes") and p.max > p.min
    if pair.logits or not several or activation(pair.layer) != "softmax":
        return None
    places = 1 / p.mean if p.mean > 0 else math.nan
    whole = (
        abs(places - round(places)) < _NEAR * places if places > 1 else False
    )
    if not (p.unit_rows < _OUTSIDE and whole):
        return None
    return _Fault(
        1,
        f"{pair.path} is a softmax, but its predictions do not add up to 1 "
        "over the classes: it runs over another axis, and compares examples "
        "or places instead.",
        "Let the softmax run over the last axis.",
    )


def _one_sided(pair: Compared, y: Field, p: Field) -> _Fault | None:
    kind = activation(pair.layer)
    wrong = pair.kind == "binary" and pair.logits and kind in _ONE_SIDED
    if not (wrong and p.min >= 0 and y.min < 0.5):
        return None
    return _Fault(
        2,
        f"The activation `{kind}` of {pair.path} is never negative, so that "
        "no probability can fall below 0.5.",
        "Remove the activation of the last layer: logits have both signs.",
    )


def _twice(
    columns: Columns, pair: Compared, row: Row, p: Field
) -> _Fault | None:
    single = pair.kind == "binary"
    inside = p.min >= 0 and p.max <= 1.001
    if not (pair.logits and pair.kind in _PROBABILITIES and inside):
        return None
    if not single and p.unit_rows != 1:
        return None
    few = single or p.mean > 0.3
    spread = p.max >= (9 if few else 3) * p.min
    if (
        not spread
        or (single and p.max < 0.9)
        or columns.get(row, "examples") < 16
    ):
        return None
    n = 1 / p.mean
    low = math.log(n + 1) - p.max
    high = math.log(n + 1 + (math.e - 2) * p.max) - p.min
    if single:
        low, high = math.log1p(math.exp(-p.max)), math.log1p(math.exp(p.max))
    median = columns.get(row, "example_loss_median")
    largest = columns.get(row, "example_loss_max")
    if not (low - _NEAR <= median and largest <= high + _NEAR):
        return None
    what = "sigmoid" if single else "softmax"
    return _Fault(
        3 if few else 2,
        f"Predictions of {pair.path} are probabilities already, and the loss "
        f"applies a {what} to them once more: it can only be from {low:.3g} "
        f"to {high:.3g}.",
        f"Remove the {what} from the model, or `from_logits=True` from the "
        "loss.",
    )


def _bounds(pair: Compared, y: Field, p: Field) -> _Fault | None:
    kind = activation(pair.layer)
    low, high = _BOUNDS.get(kind, (-math.inf, math.inf))
    within = low - _NEAR <= p.min and p.max <= high + _NEAR
    size = max(y.max - y.min, _NEAR * max(abs(y.max), abs(y.min)))
    if pair.kind != "distance" or not within or not size > 0:
        return None
    beyond = max(low - y.min, y.max - high) / size
    if not beyond >= 0.25:
        return None
    bounds = f"above {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
    return _Fault(
        1 if beyond >= 0.5 else 2,
        f"The activation `{kind}` of {pair.path} can only give numbers "
        f"{bounds}, and the targets {_range(y)}.",
        "Remove the activation of the last layer, or scale the targets to what "
        "it can give.",
    )
