"""What a scenario is: a training program, and what must be said about it.

A label is true because of how the program was built and because of what was
measured without any rule: a faulty program comes with its fixed twin, and the
quality that the twin reaches and the fault costs are part of the scenario.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from gradwatch.records import Severity

__all__ = ["RULES", "Program", "Scenario"]

RULES = (
    "nonfinite_loss",
    "nonfinite_gradient",
    "nonfinite_weight",
    "nonfinite_batch",
    "missing_gradient",
    "zero_gradient",
    "vanishing_gradient",
    "exploding_gradient",
    "gradient_spike",
    "dead_units",
    "saturated_units",
    "symmetric_weights",
    "bad_initialisation",
    "update_too_large",
    "update_too_small",
    "frozen_variable",
    "skipped_updates",
    "clipping_always",
    "stalled_loss",
    "slow_loss",
    "diverging_loss",
    "oscillating_loss",
    "loss_spike",
    "loss_floor",
    "negative_loss",
    "dominant_component",
    "conflicting_components",
    "overfitting",
    "output_mismatch",
    "target_mismatch",
    "constant_target",
    "constant_output",
    "unscaled_input",
    "unscaled_target",
)
"""Names that a label may hold: what can be wrong with a training."""


@dataclass(frozen=True, slots=True)
class Program:
    """A training script whose objects are made, ready to run.

    Attributes:
        train: trains, with these callbacks among its own.
        quality: how good the model is now, whatever its loss says: 1 is
            perfect, 0 is as good as the best constant answer. Not finite
            counts as worst.
    """

    train: Callable[[Sequence[Any]], None]
    quality: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A program and the truth about it.

    Attributes:
        name: snake_case, unique.
        meaning: what it is, one sentence.
        build: makes its Program, the same for the same seed.
        rule: the finding that names the fault, `""` if it is healthy.
        severity: how severe that finding is.
        subject: what the finding's subject must contain: a piece of the path
            of a variable, layer or component, or a field of the batch; `""`
            where no place is the right one.
        also: other rules that describe the same fault as rightly.
        fixed: makes the Program without the fault, which is healthy.
        within: steps until it must have been told; 0 = by the end.
        reaches: quality that it reaches at least if it is healthy, or else
            its fixed twin.
        costs: quality that the fault takes at least; 0 where it takes none.
        raises: part of the message of the `ValueError` with which Keras ends
            `fit`, `""` if it does not.
    """

    name: str
    meaning: str
    build: Callable[[], Program]
    rule: str = ""
    severity: Severity = "warning"
    subject: str = ""
    also: tuple[str, ...] = ()
    fixed: Callable[[], Program] | None = None
    within: int = 0
    reaches: float = 0.5
    costs: float = 0.2
    raises: str = ""

    def program(self, seed: int = 0) -> Program:
        """Returns the program, all that is random in it from `seed`."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        return self.build()

    def twin(self) -> Scenario:
        """Returns the counterfactual of a faulty scenario: it is healthy."""
        if self.fixed is None:
            raise ValueError(f"`{self.name}` is healthy: it has no twin.")
        return Scenario(
            f"{self.name}_fixed",
            f"The counterfactual of `{self.name}`.",
            self.fixed,
            reaches=self.reaches,
        )

    def holds(
        self, quality: float, error: str = "", twin: float = math.nan
    ) -> bool:
        """Whether the label is true by what was measured.

        Args:
            quality: of the trained program.
            error: message of the exception that ended its `fit`, if any.
            twin: quality of its trained twin, for a faulty one.
        """
        if self.raises not in error or bool(self.raises) != bool(error):
            return False
        if not self.rule:
            return quality >= self.reaches
        worst = quality if math.isfinite(quality) else -math.inf
        return twin >= self.reaches and twin - worst >= self.costs
