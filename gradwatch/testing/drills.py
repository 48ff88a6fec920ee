"""Drills: faults on the demo's model, and what gradwatch has to say of each.

Only the table: it loads neither Keras nor TensorFlow. `testing/drilled.py`
trains one of them, `gradwatch drill` looks at it from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DRILLS", "Drill"]


@dataclass(frozen=True, slots=True)
class Drill:
    """A fault, and what must come of it.

    Attributes:
        name: snake_case, unique.
        meaning: what goes wrong, one sentence.
        rules: findings that name it rightly, each on its own; without any
            there may be no finding of severity warning or higher.
        state: what the run must be seen in: a phase, a health of the service
            (`lost`, `stalled`) or `slow`, when a step takes several times as
            long as before.
        alert: name of the alert that follows, `""` if there is none.
        at_step: 0-based step at which it comes, unless told otherwise.
        seconds: how long it lasts, unless told otherwise: a hang, slow steps,
            or the run after it was found. Long enough for the alert, which
            needs a scrape, an evaluation and its own `for`.
    """

    name: str
    meaning: str
    rules: tuple[str, ...] = ()
    state: str = "finished"
    alert: str = ""
    at_step: int = 100
    seconds: float = 0.0


_ALL = (
    Drill("healthy", "Nothing goes wrong: no alert may come."),
    Drill(
        "nan_batch",
        "An example of a batch is NaN.",
        rules=("nonfinite_batch",),
        state="failed",
        alert="GradwatchNonfiniteBatch",
    ),
    Drill(
        "inf_weight",
        "An entry of a weight is Inf.",
        rules=("nonfinite_weight",),
        state="failed",
        alert="GradwatchNonfiniteWeight",
    ),
    Drill(
        "float16_overflow",
        "Inputs are too large for float16.",
        rules=("nonfinite_loss",),
        state="failed",
        alert="GradwatchNonfiniteLoss",
    ),
    Drill(
        "exploding_rate",
        "The learning rate is ten million times what it was.",
        rules=("diverging_loss",),
        alert="GradwatchDivergingLoss",
    ),
    Drill(
        "tiny_rate",
        "The learning rate is far too small from the start.",
        rules=("update_too_small",),
        alert="GradwatchWarning",
        at_step=0,
        seconds=180.0,
    ),
    Drill(
        "stalled_loss",
        "The learning rate is 0 from the start, and there are no X-rays.",
        rules=("stalled_loss",),
        alert="GradwatchStalledLoss",
        at_step=0,
        seconds=480.0,
    ),
    Drill(
        "zeroed_layer",
        "All weights of a layer are 0.",
        rules=("dead_units",),
        alert="GradwatchWarning",
        seconds=180.0,
    ),
    Drill(
        "hang",
        "A batch does not come; the process lives.",
        state="stalled",
        alert="GradwatchRunStalled",
        seconds=600.0,
    ),
    Drill(
        "slow_steps",
        "Each step takes ten times as long.",
        state="slow",
        alert="GradwatchStepTimeRegression",
        at_step=5000,
        seconds=60.0,
    ),
    Drill(
        "crash",
        "The training raises an exception.",
        state="failed",
        alert="GradwatchRunFailed",
    ),
    Drill(
        "kill",
        "The process is killed, as when memory runs out.",
        state="lost",
        alert="GradwatchRunLost",
    ),
)

DRILLS = {drill.name: drill for drill in _ALL}
"""All drills by name."""
