"""Rollbacks: each time that the model went back to where it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)

__all__ = ["RolledBack"]


class RolledBack:
    """A bad step has taken the model back to an earlier state.

    Definition: with `on_nonfinite="rollback"`, each rollback. A warning as long
    as training goes on; critical at the one after `max_rollbacks` in the run,
    or since it was last stopped by that, with which training ends. Threshold:
    the user's own.
    """

    name = "rolled_back"
    severity: Severity = "critical"
    needs = ("rollback_steps",)
    meaning = "A bad step has taken the model back to an earlier state."
    advice = (
        'If a batch was bad, mend the data or take on_nonfinite="skip"; if '
        "the training diverged, begin with the smaller learning rate, warm it "
        "up, or clip the gradients."
    )

    def __init__(self) -> None:
        self._number = 0

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._most = anatomy.max_rollbacks
        self._factor = anatomy.rollback_factor
        self._column = schema.column(self.needs[0])

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block) or self._column is None:
            return
        steps = record.values[:, self._column]
        for row in np.flatnonzero(steps > 0).tolist():
            self._number += 1
            yield self._finding(int(record.steps[row]), int(steps[row]))
            if self._number > self._most:
                self._number = 0

    def _finding(self, step: int, back: int) -> Finding:
        number, most = self._number, self._most
        ends = number > most
        to = step + 1 - back
        then = (
            f"learning rates were multiplied by {self._factor:g} ({number} of "
            f"{most} times)"
        )
        if ends:
            then = f"training ended, for {most} rollbacks are allowed"
        return Finding(
            rule=self.name,
            severity="critical" if ends else "warning",
            subject="",
            first_step=step,
            last_step=step,
            evidence={"step": to, "steps_lost": back, "rollbacks": number},
            causes=(),
            message=(
                f"Step {step} was bad: the model went back to where it was "
                f"before step {to}, and {then}."
            ),
            advice=self.advice,
        )
