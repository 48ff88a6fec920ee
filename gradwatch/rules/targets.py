"""Targets: are they what the loss expects, and is there anything in them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.compiled import Compared, Field, compared, field
from gradwatch.rules.evidence import constant_loss
from gradwatch.rules.rows import Columns, Row, xrays

__all__ = ["TargetMismatch", "misfit"]


class Misfit(NamedTuple):
    """How targets do not fit a loss.

    Attributes:
        why: a sentence with the numbers.
        advice: what to do.
    """

    why: str
    advice: str


_BEYOND = 0.25
_FLAT = 0.97
_LATE = 50


def misfit(
    pair: Compared, y: Field, p: Field, stuck: bool = False
) -> Misfit | None:
    """Returns how targets do not fit their loss, `None` if they do.

    Args:
        pair: what is compared.
        y: the targets.
        p: the predictions.
        stuck: whether the loss is no better than that of the best constant.
    """
    judge = _JUDGES.get(pair.kind)
    return judge(pair, y, p, stuck) if judge else None


def _range(y: Field) -> str:
    return f"The targets go from {y.min:.4g} to {y.max:.4g}"


def _binary(_: Compared, y: Field, p: Field, stuck: bool) -> Misfit | None:
    if not (y.min < -_BEYOND or y.max > 1 + _BEYOND):
        return None
    advice = "Scale targets to [0, 1], or use a loss for numbers."
    if y.integers == 1:
        advice = (
            "Map two classes to 0 and 1; for more, use a sparse categorical "
            "crossentropy with an output for each; divide pixels by 255."
        )
    return Misfit(
        f"{_range(y)}; a binary crossentropy expects numbers in [0, 1] and "
        "has no lower bound for others.",
        advice,
    )


def _classes(pair: Compared, y: Field, p: Field, stuck: bool) -> Misfit | None:
    if y.integers < 0.999:
        return Misfit(
            f"{_range(y)} and {1 - y.integers:.0%} of them are not whole; as "
            "class ids they are cut to whole numbers.",
            "Give class ids 0, 1, 2, ..., or use a loss for numbers.",
        )
    if y.min < 0 and not pair.ignored:
        return Misfit(
            f"{_range(y)}; class ids begin at 0.",
            "Number the classes from 0, or name `ignore_class` in the loss.",
        )
    classes = pair.units or (round(1 / p.mean) if _simplex(p) else 0)
    if classes > 1 and y.max >= classes and not pair.ignored:
        return Misfit(
            f"{_range(y)}; with {classes} outputs, class ids end at "
            f"{classes - 1}.",
            "Number the classes from 0, and give each of them an output.",
        )
    return None


def _rows(_: Compared, y: Field, p: Field, stuck: bool) -> Misfit | None:
    signed = y.min < -_BEYOND
    if not signed and not (y.unit_rows < 0.5 and y.max > 1.001 and stuck):
        return None
    return Misfit(
        f"{_range(y)}, and only {y.unit_rows:.0%} of their rows add up to 1; "
        "a categorical crossentropy expects rows of probabilities.",
        "Use one-hot rows (`keras.utils.to_categorical`), or class ids with "
        "the sparse loss.",
    )


def _distance(_: Compared, y: Field, p: Field, stuck: bool) -> Misfit | None:
    ids = y.integers == 1 and y.min >= 0 and y.max >= 2
    if not (ids and _simplex(p)) or y.unit_rows == 1:
        return None
    return Misfit(
        f"{_range(y)}, all whole, and are compared with rows of "
        f"{round(1 / p.mean)} probabilities as if they were numbers.",
        "For class ids use a sparse categorical crossentropy.",
    )


def _hinge(_: Compared, y: Field, p: Field, stuck: bool) -> Misfit | None:
    if not (y.min < -1 - _BEYOND or y.max > 1 + _BEYOND):
        return None
    return Misfit(
        f"{_range(y)}; a hinge expects -1 and 1.",
        "Map two classes to -1 and 1; for more, use a crossentropy.",
    )


def _poisson(_: Compared, y: Field, p: Field, stuck: bool) -> Misfit | None:
    if not y.min < -0.01 * max(y.max, 1.0):
        return None
    return Misfit(
        f"{_range(y)}; Poisson's likelihood expects counts, and has no lower "
        "bound for negative numbers.",
        "Do not centre counts; for other numbers use a squared error.",
    )


_JUDGES: dict[str, Callable[[Compared, Field, Field, bool], Misfit | None]] = {
    "binary": _binary,
    "classes": _classes,
    "rows": _rows,
    "distance": _distance,
    "hinge": _hinge,
    "poisson": _poisson,
}


def _simplex(p: Field) -> bool:
    """Whether predictions are rows of several probabilities."""
    return p.unit_rows == 1 and p.min >= 0 and p.max <= 1.001 and p.mean < 0.6


class TargetMismatch:
    """Targets are not what the compiled loss expects.

    Definition: on an X-ray, targets of one of Keras' own losses are outside of
    where it is defined: beyond [-0.25, 1.25] in a binary crossentropy; class
    ids that are not whole, negative or not below the number of outputs;
    negative rows in a categorical crossentropy, or rows that do not add up to
    1, with entries above 1, while on an X-ray from step 50 on the loss is at
    least 97 % of `component_constant_loss`; whole numbers of 2 and more by a
    distance against rows of probabilities; beyond [-1.25, 1.25] in a hinge;
    negative in Poisson's. Threshold: none where a single entry proves it; the
    margin of a quarter lets noisy labels pass (0.7 to 1.2 is common for
    adversaries). Rows that add up to something else can be one-hot rows times
    a weight, or counts, which train well; so these need the evidence that
    nothing was learned. Told once for each output.
    """

    name = "target_mismatch"
    severity: Severity = "warning"
    needs = ("batch_min", "batch_max")
    meaning = "Targets are not what the loss expects."
    advice = "Look at a few targets, and choose the loss that is made for them."

    def __init__(self) -> None:
        self._told: set[str] = set()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._anatomy, self._columns = anatomy, Columns(schema)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row in xrays(record):
            for pair in compared(self._anatomy, self._columns, row):
                if pair.targets not in self._told:
                    yield from self._judge(pair, row)

    def _judge(self, pair: Compared, row: Row) -> Iterator[Finding]:
        y = field(self._columns, row, pair.targets)
        p = field(self._columns, row, pair.predictions)
        found = misfit(pair, y, p, _stuck(self._columns, row, pair))
        if found is None:
            return
        self._told.add(pair.targets)
        yield Finding(
            rule=self.name,
            severity=self.severity,
            subject=pair.targets,
            first_step=row.step,
            last_step=row.step,
            evidence={
                "loss": pair.name,
                "batch_min": y.min,
                "batch_max": y.max,
                "batch_integer_ratio": y.integers,
                "batch_unit_row_ratio": y.unit_rows,
            },
            causes=("data",),
            message=f"{found.why} The loss is `{pair.name}`.",
            advice=found.advice,
        )


def _stuck(columns: Columns, row: Row, pair: Compared) -> bool:
    """Whether the loss is that of a constant, long after the start."""
    loss = columns.get(row, "loss_component", pair.component)
    best = constant_loss(columns, row, pair.component)
    return row.step >= _LATE and loss >= _FLAT * best > 0
