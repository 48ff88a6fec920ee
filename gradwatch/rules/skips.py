"""Bad steps that were skipped, until they were too many."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradwatch.facts import SKIPS_IN_ALL
from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)

__all__ = ["TooManySkips"]


class TooManySkips:
    """The guard has stopped a run that was to skip its bad steps.

    Definition: with `on_nonfinite="skip"`, more than `max_skips` bad steps in a
    row, or more than 10 times `max_skips` since the run began or was last
    stopped by that. It counts what the guard counts: steps that are not finite
    and whose update was dropped. Threshold: the user's own.
    """

    name = "too_many_skips"
    severity: Severity = "critical"
    needs = ("nonfinite", "update_dropped")
    meaning = "More steps were bad than are skipped, so training was ended."
    advice = (
        "The first finding of this run says what was not finite; mend that, or "
        "raise `max_skips` if so many bad batches are to be expected."
    )

    def __init__(self) -> None:
        self._last, self._row, self._total = -2, 0, 0
        self._stopped = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`; a run that goes on after a stop begins again."""
        self._most = anatomy.max_skips
        self._columns = [schema.column(signal) for signal in self.needs]
        self._stopped = False

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        bad, dropped = self._columns
        if not (isinstance(record, Block) and self._most):
            return
        if bad is None or dropped is None:
            return
        skipped = (record.values[:, bad] > 0) & (record.values[:, dropped] > 0)
        for step in record.steps[np.flatnonzero(skipped)].tolist():
            if self._stopped:  # what was left of an execution
                return
            self._row = self._row + 1 if step == self._last + 1 else 1
            self._last, self._total = step, self._total + 1
            most = self._most * SKIPS_IN_ALL
            if self._row > self._most or self._total > most:
                yield self._finding(step)
                self._stopped, self._row, self._total = True, 0, 0

    def _finding(self, step: int) -> Finding:
        row, total = self._row, self._total
        in_row = row > self._most
        most = self._most if in_row else self._most * SKIPS_IN_ALL
        said = f"{row} in a row" if in_row else f"{total} in all"
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=step - row + 1 if in_row else step,
            last_step=step,
            evidence={"in_a_row": row, "in_all": total, "limit": most},
            causes=(),
            message=(
                f"Training was ended at step {step}: {said} were not finite, "
                f"and {most} are skipped at most. Weights are those before it."
            ),
            advice=self.advice,
        )
