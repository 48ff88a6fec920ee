"""NaN and Inf, at the exact step; one fault makes one finding.

All four rules look at the same incidents: a non-finite step begins one, and
`QUIET_STEPS` finite ones in a row end it. It belongs to the rule of what
was not finite in its first step, the earliest in the chain of causes: NaN in
the batch makes the loss NaN, a loss that is NaN makes the gradients NaN, a
gradient that is NaN makes the weights NaN, and whatever follows in later steps
is the same fault. Row by row, so findings do not depend on how Blocks are cut.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradwatch.facts import QUIET_STEPS
from gradwatch.records import Anatomy, Block, Finding, Record, Schema, Severity
from gradwatch.rules.wording import listed

__all__ = [
    "NonfiniteBatch",
    "NonfiniteGradient",
    "NonfiniteLoss",
    "NonfiniteWeight",
]

_SQUARABLE = 1.8e19  # the square of more than this is Inf in float32
_OVERFLOW = (
    "The training diverges: lower the learning rate, clip by value, or scale "
    "inputs and loss down."
)
_Source = Literal["batch", "loss", "gradient", "weight"]
_NEEDS = (
    "loss",
    "nonfinite",
    "nonfinite_batch",
    "nonfinite_target",
    "nonfinite_weight",
    "variable_gradient_norm",
    "variable_nonfinite",
    "update_dropped",
)


class _Incidents:
    """Finds the first rows of incidents and what was not finite there."""

    def __init__(self) -> None:
        self._quiet = QUIET_STEPS

    def begin(self, schema: Schema) -> None:
        self._flag = schema.column("nonfinite")
        self._loss = schema.column("loss")
        self._batch = schema.column("nonfinite_batch")
        self._target = schema.column("nonfinite_target")
        self._lost = schema.column("nonfinite_weight")
        self._dropped = schema.column("update_dropped")
        self._gradients = schema.columns("variable_gradient_norm")
        self._weights = schema.columns("variable_nonfinite")
        self._replicas = schema.columns("replica_nonfinite")

    def starts(self, record: Record) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields step and facts of each first row of an incident."""
        if not isinstance(record, Block) or self._flag is None:
            return
        previous = -1
        for row in np.flatnonzero(record.values[:, self._flag]).tolist():
            self._quiet += row - previous - 1
            if self._quiet >= QUIET_STEPS:
                yield int(record.steps[row]), self._facts(record.values[row])
            self._quiet, previous = 0, row
        self._quiet += len(record) - previous - 1

    def _facts(self, row: NDArray[np.float32]) -> dict[str, Any]:
        def flag(column: int | None) -> bool:
            return column is not None and bool(row[column])

        loss = float(row[self._loss]) if self._loss is not None else 0.0
        norms = {path: float(row[i]) for path, i in self._gradients.items()}
        gradients = {k: v for k, v in norms.items() if not np.isfinite(v)}
        overflows = {k: v for k, v in norms.items() if v > _SQUARABLE}
        weights = [path for path, i in self._weights.items() if row[i]]
        replicas = [name for name, i in self._replicas.items() if row[i]]
        source: _Source = "weight"
        if not flag(self._lost):
            if flag(self._batch):
                source = "batch"
            elif not np.isfinite(loss):
                source = "loss"
            elif gradients or (overflows and not weights):
                source = "gradient"
        return {
            "source": source,
            "loss": loss,
            "gradients": gradients or overflows,
            "variables": len(self._gradients),
            "weights": weights,
            "replicas": replicas,
            "every_replica": len(replicas) == len(self._replicas),
            "batch": flag(self._batch),
            "target": flag(self._target),
            "lost": flag(self._lost),
            "update_applied": not flag(self._dropped),
        }


class _Nonfinite(abc.ABC):
    """What the three rules share."""

    severity: Severity = "critical"
    needs = _NEEDS
    name: str
    meaning: str
    advice: str
    _source: _Source

    def __init__(self) -> None:
        self._incidents = _Incidents()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._skips = anatomy.max_skips > 0
        self._returns = anatomy.max_rollbacks > 0
        self._incidents.begin(schema)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for step, facts in self._incidents.starts(record):
            if facts["source"] == self._source:
                yield self._finding(step, facts)

    def _finding(self, step: int, facts: dict[str, Any]) -> Finding:
        subject, what = self._say(facts)
        causes, advice = self._why(facts)
        # Nothing is lost yet where training goes on without the step.
        lost = facts["lost"] or facts["update_applied"]
        kept = self._returns or (self._skips and not lost)
        left = _left(facts, self._returns)
        return Finding(
            rule=self.name,
            severity="warning" if kept else self.severity,
            subject=subject,
            first_step=step,
            last_step=step,
            evidence={
                "loss": facts["loss"],
                "nonfinite_gradients": list(facts["gradients"]),
                "variables": facts["variables"],
                "nonfinite_weights": facts["weights"],
                "nonfinite_batch": facts["batch"],
                "nonfinite_replicas": facts["replicas"],
                "update_applied": facts["update_applied"],
            },
            causes=causes,
            message=f"{what} at step {step}{_where(facts)}. {left}",
            advice=advice,
        )

    def _why(self, facts: dict[str, Any]) -> tuple[tuple[str, ...], str]:
        """Returns causes and advice."""
        if facts["batch"]:
            return ("data",), self.advice
        finite = np.isfinite([facts["loss"], *facts["gradients"].values()])
        if finite.all() and not facts["weights"]:
            return ("overflow",), _OVERFLOW
        return (), self.advice

    @abc.abstractmethod
    def _say(self, facts: dict[str, Any]) -> tuple[str, str]:
        """Returns the subject and what is wrong, without the step."""


class NonfiniteBatch(_Nonfinite):
    """Inputs, targets or sample weights hold NaN or Inf.

    Definition: in the first step of an incident the batch that the step was
    given holds NaN or Inf. Batches are looked at in steps that are not finite
    only: NaN that a mask keeps out of the loss does no harm. Threshold: none, a
    single entry counts.
    """

    name = "nonfinite_batch"
    meaning = "A batch holds NaN or Inf, and they reach the loss."
    advice = (
        "Find NaN or Inf in the inputs, targets or sample weights of this "
        "batch and drop or fill them before training."
    )
    _source: _Source = "batch"

    def _say(self, facts: dict[str, Any]) -> tuple[str, str]:
        where = "targets" if facts["target"] else "inputs"
        what = "targets or sample weights" if facts["target"] else "inputs"
        return where, f"NaN or Inf came with the {what} of the batch"


class NonfiniteLoss(_Nonfinite):
    """The loss is NaN or Inf.

    Definition: the step's own total loss is not finite, in the first step of
    an incident. Threshold: none, a single value counts.
    """

    name = "nonfinite_loss"
    meaning = "The loss of a step is NaN or Inf."
    advice = (
        "Inputs and targets of this batch are finite: look for log or division "
        "at 0 and for exp or squares that overflow in the loss and the layers."
    )
    _source: _Source = "loss"

    def _say(self, facts: dict[str, Any]) -> tuple[str, str]:
        return "loss", f"The loss became {_kind([facts['loss']])}"


class NonfiniteGradient(_Nonfinite):
    """A gradient is NaN or Inf although the loss is finite.

    Definition: at least one gradient, as the tape gave it, before clipping,
    holds NaN or Inf in a step with a finite loss. Threshold: none, a single
    entry counts.
    """

    name = "nonfinite_gradient"
    meaning = "A gradient holds NaN or Inf although the loss is finite."
    advice = (
        "Look for a sqrt, norm, log or power below 1 that meets 0 in the loss "
        "or a layer, where its derivative is infinite although its value is "
        "fine, and add a small epsilon inside it."
    )
    _source: _Source = "gradient"

    def _say(self, facts: dict[str, Any]) -> tuple[str, str]:
        paths = list(facts["gradients"])
        which = listed(paths)
        if len(paths) == facts["variables"]:
            which = f"all {len(paths)} variables ({which})"
        norms = list(facts["gradients"].values())
        what = f"became {_kind(norms)}"
        if np.isfinite(norms).all():
            what = f"grew to {max(norms):.2g}, whose square overflows,"
        return paths[0], (
            f"The gradient of {which} {what} while the loss was still "
            f"{facts['loss']:.4g}"
        )


class NonfiniteWeight(_Nonfinite):
    """Variables of the model become NaN or Inf before loss or gradients do.

    Definition: a non-trainable variable (BatchNorm statistics, a counter) is
    assigned NaN or Inf by a step whose loss and gradients are finite; or a
    step is not finite and trainable weights were not already before it, since
    an update of finite gradients has overflowed. Threshold: none, a single
    entry counts.
    """

    name = "nonfinite_weight"
    meaning = "A step assigns NaN or Inf to a variable of the model."
    advice = (
        "The layer that owns this variable saw values too large for its "
        "dtype; look at the scale of its inputs."
    )
    _source: _Source = "weight"

    def _say(self, facts: dict[str, Any]) -> tuple[str, str]:
        if facts["lost"]:
            return "weights", "Trainable weights held NaN or Inf already"
        paths = facts["weights"] or ["state"]
        return paths[0], f"NaN or Inf was assigned to {listed(paths)}"


def _where(facts: dict[str, Any]) -> str:
    """Says which replicas are concerned, if not all of them."""
    if facts["every_replica"] or not facts["replicas"]:
        return ""
    return f" in replica {listed(facts['replicas'])} alone"


def _left(facts: dict[str, Any], returns: bool) -> str:
    """Says what has become of the weights."""
    if facts["lost"]:
        which = "these" if returns else "the"
        return f"An earlier update has overflowed: {which} weights are lost."
    if facts["update_applied"]:
        return "The update was applied: the weights are lost."
    return "The update was dropped: the weights are those before it."


def _kind(values: Any) -> str:
    nan = [bool(np.isnan(v)) for v in values]
    if all(nan):
        return "NaN"
    return "NaN or Inf" if any(nan) else "Inf"
