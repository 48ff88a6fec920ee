"""Rules of your own: a module that imports neither Keras nor TensorFlow.

`04_own_rule.py` trains with them, and `gradwatch judge` finds them by the name
of this module: they see records only, so that an old run can be judged, too.
"""

from collections.abc import Iterator

import numpy as np

from gradwatch import Block, Finding, Rule, default_rules
from gradwatch.records import Anatomy, Record, Schema


class RateJump:
    """The learning rate is suddenly many times what it was.

    Definition: after the warm-up, the rate in force in a step is at least
    `factor` times that of the step before. Told once.
    """

    name = "rate_jump"
    severity = "warning"
    needs = ("learning_rate",)
    meaning = "The learning rate is suddenly many times what it was."
    advice = "Look at the schedule: after the warm-up it may only fall."

    def __init__(self, factor: float = 3.0, warmup: int = 50) -> None:
        self._factor, self._warmup = factor, warmup
        self._before = np.inf  # the last rate that was seen
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """What the columns of the Blocks to come mean."""
        self._column = schema.column("learning_rate")

    def check(self, record: Record) -> Iterator[Finding]:
        """Judges the next rows; where one Block ends does not matter."""
        if not isinstance(record, Block) or self._column is None:
            return
        for step, rate in zip(record.steps, record.values[:, self._column]):
            jumped = rate >= self._factor * self._before
            if jumped and step >= self._warmup and not self._told:
                self._told = True
                yield self._finding(int(step), float(rate))
            self._before = float(rate)

    def _finding(self, step: int, rate: float) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=step,
            last_step=step,
            evidence={"learning_rate": rate, "before": self._before},
            causes=("schedule",),
            message=f"The learning rate was {self._before:.3g} and is "
            f"{rate:.3g} from step {step} on.",
            advice=self.advice,
        )


def rules() -> list[Rule]:
    """Returns new instances: a rule keeps what it has seen of its run."""
    return [*default_rules(), RateJump()]
