"""The catalogue: what can be measured, each signal defined once.

The words for it, and what derives from it, are in `signals`. Imports the
standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CATALOGUE", "Scope", "Signal"]

Scope = Literal[
    "run",
    "variable",
    "layer",
    "component",
    "optimizer",
    "replica",
    "field",
    "epoch",
]


@dataclass(frozen=True, slots=True)
class Signal:
    """A measurable quantity.

    Attributes:
        name: snake_case, unique.
        unit: unit of its values; `"1"` where there is none (the unit of a loss
            is the user's own), `"flag"` for 0 or 1, `"ratio"` for a share,
            `"steps"` for a number of them.
        scope: what one value belongs to.
        meaning: one sentence: what the number is and where it is measured.
        xray: measured on X-ray steps only.
        histogram: its values are numbers of entries, int64 `[bins]`, between
            `HISTOGRAM_EDGES`; they are no column of a Schema.
    """

    name: str
    unit: str
    scope: Scope
    meaning: str
    xray: bool = False
    histogram: bool = False


def _rows(
    scope: Scope,
    unit: str,
    kind: Literal["everyday", "xray", "histogram"] = "everyday",
    /,
    **meanings: str,
) -> tuple[Signal, ...]:
    histogram = kind == "histogram"
    xray = kind == "xray" or histogram
    return tuple(
        Signal(name, unit, scope, meaning, xray, histogram)
        for name, meaning in meanings.items()
    )


CATALOGUE = (
    *_rows(
        "run",
        "1",
        loss="The step's own total loss as the optimizer saw it: all outputs, "
        "`add_loss` and regularisers of this batch, no running mean.",
        gradient_norm="L2 norm over all gradients of the step, unscaled, "
        "before clipping.",
        applied_gradient_norm="L2 norm over what the weights are updated with: "
        "after the user's own code, collecting and clipping; measured if there "
        "is any of these.",
        learning_rate="Learning rate in force in the step.",
        loss_scale="Factor by which the loss is scaled in mixed precision.",
        examples="Examples in the step's batch.",
        examples_per_second="Examples over the step's time.",
    ),
    *_rows(
        "run",
        "ratio",
        clip_factor="Norm after the optimizer's own clipping over the norm "
        "before: 1 where it did not bind, NaN in a step that only collects; "
        "measured if the optimizer clips. The user's own clipping is not in "
        "it: `gradient_norm` is before that, `applied_gradient_norm` after.",
    ),
    *_rows(
        "run",
        "seconds",
        step_time="Time of the step in the train function, its share of an "
        "execution of several; on a GPU the time between finished steps.",
        data_wait="Part of `step_time` in which the step waited for its batch.",
    ),
    *_rows(
        "component",
        "1",
        loss_component="A part of the loss, weighted: those without a parent "
        "add up to `loss`, the others to their parent.",
        raw_loss_component="A part of the loss before its own weight.",
    ),
    *_rows(
        "optimizer",
        "1",
        optimizer_gradient_norm="`gradient_norm` of one of several optimizers.",
        optimizer_applied_gradient_norm="`applied_gradient_norm` of one of "
        "several optimizers.",
        optimizer_learning_rate="`learning_rate` of one of several optimizers; "
        "the run's is the first one's.",
    ),
    *_rows(
        "optimizer",
        "ratio",
        optimizer_clip_factor="`clip_factor` of one of several optimizers, the "
        "smallest of its updates in the step.",
    ),
    *_rows(
        "run",
        "steps",
        optimizer_step="`optimizer.iterations` before the update, exact up to "
        "16,777,216.",
        rollback_steps="Steps whose effect was undone after this one, itself "
        "among them, when the model went back to a snapshot; 0 = none. "
        "Measured with that policy.",
    ),
    *_rows(
        "run",
        "flag",
        nonfinite="1 if the loss, a gradient (or its square, where the "
        "optimizer needs it) or assigned state of the step holds NaN or Inf.",
        nonfinite_batch="1 if the step was not finite and its inputs, targets "
        "or sample weights hold NaN or Inf (looked at only then).",
        nonfinite_target="1 if `nonfinite_batch` and the targets or sample "
        "weights hold NaN or Inf, 0 if only the inputs do.",
        nonfinite_weight="1 if the step was not finite and a trainable weight "
        "held NaN or Inf already before it (looked at only then).",
        update_applied="1 if the step's gradients changed the weights, 0 if "
        "they were dropped or, with gradient accumulation, only collected.",
        update_dropped="1 if the guard, or loss scaling, kept the step's "
        "gradients from the weights.",
        update_held="1 if the update of a step that was not bad was dropped, "
        "since the black box of one before was still to be written. Measured "
        "where bad steps are skipped and an execution has several.",
    ),
    *_rows(
        "replica",
        "flag",
        replica_nonfinite="1 if the replica's own loss or gradients, or the "
        "state that it assigned, hold NaN or Inf.",
    ),
    *_rows(
        "variable",
        "1",
        variable_gradient_norm="L2 norm of the gradient of one variable, "
        "unscaled, before clipping.",
    ),
    *_rows(
        "variable",
        "flag",
        variable_nonfinite="1 if the value that the step's forward pass "
        "assigned to this non-trainable variable holds NaN or Inf.",
    ),
    *_rows(
        "variable",
        "1",
        "xray",
        variable_gradient_max_abs="Largest absolute entry of the gradient of "
        "one variable, unscaled, before clipping.",
        variable_weight_norm="L2 norm of one variable before the update.",
        variable_update_norm="L2 norm of what the step's update added to one "
        "trainable variable.",
    ),
    *_rows(
        "variable",
        "ratio",
        "xray",
        variable_zero_gradient_ratio="Share of the entries of the gradient of "
        "one variable that are exactly 0.",
        variable_unit_spread="Standard deviation over the units (last axis) of "
        "one variable's entries, over their root mean square, before the "
        "update: 0 where all units are copies; of those with several axes.",
    ),
    *_rows(
        "layer",
        "ratio",
        "xray",
        layer_silent_ratio="Share of a layer's units (last axis) that are "
        "exactly 0 for all samples and positions of the batch.",
        layer_bound_ratio="Share of a layer's outputs within 1 % of a bound.",
    ),
    *_rows(
        "layer",
        "1",
        "xray",
        layer_mean="Mean of the entries of a layer's output.",
        layer_std="Standard deviation of the entries of a layer's output.",
        layer_max_abs="Largest absolute entry of a layer's output.",
        layer_nonfinite="Entries of a layer's output that are NaN or Inf.",
    ),
    *_rows(
        "field",
        "1",
        "xray",
        batch_min="Smallest entry of a field of the batch.",
        batch_max="Largest entry of a field of the batch.",
        batch_mean="Mean of the entries of a field of the batch.",
        batch_std="Standard deviation of the entries of a field of the batch.",
        batch_distinct="Distinct entries of a field of the batch, 64 at most.",
        batch_example_std="Standard deviation over the examples of a field's "
        "entries at the same place, root mean square over the places.",
    ),
    *_rows(
        "field",
        "ratio",
        "xray",
        batch_nonfinite_ratio="Share of a batch field's entries that are NaN "
        "or Inf.",
        batch_integer_ratio="Share of a batch field's entries that are whole "
        "numbers.",
        batch_unit_row_ratio="Share of a batch field's rows (last axis) whose "
        "sum is 1, within 0.001.",
    ),
    *_rows(
        "run",
        "1",
        "xray",
        example_loss_median="Median of the losses of the batch's examples.",
        example_loss_high="90 % quantile of the losses of the examples.",
        example_loss_max="Largest loss of the batch's examples.",
    ),
    *_rows(
        "run",
        "ratio",
        "xray",
        xray_share="Share of the time that X-rays have cost, without tracing.",
    ),
    *_rows(
        "run",
        "seconds",
        "xray",
        xray_trace="Time that tracing the X-ray took, at the first one.",
    ),
    *_rows(
        "component",
        "1",
        "xray",
        component_gradient_norm="L2 norm over all gradients of one component.",
        component_lowest_loss="What a compiled loss would be if the targets "
        "themselves were predicted: 0, or the targets' entropy.",
        component_constant_loss="What a compiled loss would be if the same "
        "were predicted for all examples of the batch, and that at its best.",
        component_gradient_cosine="Cosine of the angle between the gradients "
        "of two components of the loss: -1 where one undoes the other.",
    ),
    *_rows(
        "variable",
        "1",
        "histogram",
        gradient_histogram="Entries of one variable's gradient, unscaled, "
        "before clipping.",
        weight_histogram="Entries of one trainable variable before the update.",
    ),
    *_rows(
        "layer",
        "1",
        "histogram",
        activation_histogram="Entries of a layer's output.",
    ),
    *_rows(
        "epoch",
        "1",
        validation_loss="Validation loss at the end of an epoch.",
        metric="A training metric at the end of an epoch, as Keras reports it "
        "(`loss` here is the epoch's running mean).",
        validation_metric="A validation metric at the end of an epoch.",
    ),
)
"""All signals, in the order in which they are shown."""
