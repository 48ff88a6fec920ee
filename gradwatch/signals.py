"""The measurable quantities, each defined once.

TensorBoard tags, Prometheus names and the table in the README derive from
`SIGNALS`. Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["SIGNALS", "Scope", "Signal", "Slot", "prometheus_name", "tag"]

Scope = Literal["run", "variable", "layer", "component", "epoch"]


@dataclass(frozen=True, slots=True)
class Signal:
    """A measurable quantity.

    Attributes:
        name: snake_case, unique.
        unit: unit of its values; `"1"` where there is none (the unit of a loss
            is the user's own), `"flag"` for 0 or 1, `"steps"` for a number
            of them.
        scope: what one value belongs to.
        meaning: one sentence: what the number is and where it is measured.
    """

    name: str
    unit: str
    scope: Scope
    meaning: str


class Slot(NamedTuple):
    """One measured column: a signal and what it was measured on.

    Attributes:
        signal: name of a `Signal`.
        subject: path of a variable, layer or component, name of a metric, or
            `""` for the run.
    """

    signal: str
    subject: str = ""


SIGNALS: Mapping[str, Signal] = {
    s.name: s
    for s in (
        Signal(
            "loss",
            "1",
            "run",
            "The step's own total loss as the optimizer saw it: all outputs, "
            "`add_loss` and regularisers of this batch, no running mean.",
        ),
        Signal(
            "gradient_norm",
            "1",
            "run",
            "L2 norm over all gradients of the step, unscaled, before "
            "clipping.",
        ),
        Signal(
            "variable_gradient_norm",
            "1",
            "variable",
            "L2 norm of the gradient of one variable, unscaled, before "
            "clipping.",
        ),
        Signal(
            "nonfinite",
            "flag",
            "run",
            "1 if the loss, a gradient (or its square, where the optimizer "
            "needs it) or assigned state of the step holds NaN or Inf.",
        ),
        Signal(
            "nonfinite_batch",
            "flag",
            "run",
            "1 if the step was not finite and its inputs, targets or sample "
            "weights hold NaN or Inf (looked at only then).",
        ),
        Signal(
            "nonfinite_weight",
            "flag",
            "run",
            "1 if the step was not finite and a trainable weight held NaN or "
            "Inf already before it (looked at only then).",
        ),
        Signal(
            "variable_nonfinite",
            "flag",
            "variable",
            "1 if the value that the step's forward pass assigned to this "
            "non-trainable variable holds NaN or Inf.",
        ),
        Signal(
            "update_applied",
            "flag",
            "run",
            "1 if the step's gradients changed the weights, 0 if they were "
            "dropped or, with gradient accumulation, only collected.",
        ),
        Signal(
            "update_dropped",
            "flag",
            "run",
            "1 if the guard, or loss scaling, kept the step's gradients from "
            "the weights.",
        ),
        Signal(
            "applied_gradient_norm",
            "1",
            "run",
            "L2 norm over what the weights are updated with: after collecting "
            "and clipping; measured if the optimizer does either.",
        ),
        Signal(
            "learning_rate",
            "1",
            "run",
            "Learning rate in force in the step.",
        ),
        Signal(
            "optimizer_step",
            "steps",
            "run",
            "`optimizer.iterations` before the update, exact up to 16,777,216.",
        ),
        Signal(
            "loss_scale",
            "1",
            "run",
            "Factor by which the loss is scaled in mixed precision.",
        ),
        Signal(
            "validation_loss",
            "1",
            "epoch",
            "Validation loss at the end of an epoch, as Keras reports it.",
        ),
        Signal(
            "metric",
            "1",
            "epoch",
            "A training metric at the end of an epoch, as Keras reports it "
            "(`loss` here is the epoch's running mean).",
        ),
        Signal(
            "validation_metric",
            "1",
            "epoch",
            "A validation metric at the end of an epoch, as Keras reports it.",
        ),
    )
}


def tag(slot: Slot) -> str:
    """Returns the TensorBoard tag of a slot: `signal` or `signal/subject`."""
    return f"{slot.signal}/{slot.subject}" if slot.subject else slot.signal


def prometheus_name(signal: str) -> str:
    """Returns the Prometheus name of a signal: prefix, name, unit suffix.

    Base units only (seconds, bytes, ratio), plural and last, as Prometheus'
    naming practices ask; signals without a unit get no suffix.
    """
    unit = SIGNALS[signal].unit
    return f"gradwatch_{signal}" + (
        "" if unit in ("1", "flag", "steps") else f"_{unit}"
    )
