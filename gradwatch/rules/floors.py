"""Floors: a loss that cannot be lower, whatever is learned."""

from __future__ import annotations

from itertools import pairwise

from gradwatch.records import Anatomy, Finding, Schema, Severity
from gradwatch.rules.stalls import LEAST, NOTHING, OfProgress
from gradwatch.rules.standing import Standing

__all__ = ["LossFloor"]


class LossFloor(OfProgress):
    """The loss sits at the lowest value that these targets allow.

    Definition: after half of the plan, the loss has gone 90 % of the way from
    the best constant answer to what it would be if the targets themselves were
    predicted, and this floor is at least a tenth of the constant answer's loss
    (the entropy of soft or smoothed targets). Or targets are the inputs, d
    numbers, by squares through dense layers whose narrowest has k units, fewer:
    the loss has gone k / d of its way (0.9 to 1.25 of that), and no fall that
    noise hides may bring it 5 % farther by the end of the plan
    (`Standing.reach`). Principal components explain k / d at least, and of
    numbers that do not depend on each other no more, but for chance. Not a
    fault. Told once.
    """

    name = "loss_floor"
    severity: Severity = "info"
    needs = ("loss", "component_lowest_loss")
    meaning = "The loss is at the lowest value that the targets allow."
    advice = (
        "Nothing is wrong; judge by a metric that is 0 for the best answer."
    )

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        super().begin(anatomy, schema)
        self._kept, self._numbers = _bottleneck(anatomy)

    def _look(self, at: Standing) -> Finding | None:
        late = at.seen >= max(LEAST, 0.5 * at.plan)
        if late and at.lowest > 0.1 * at.constant and at.gain > 0.9:
            return self._finding(
                at,
                (),
                f"The loss of {at.now:.4g} is near the lowest that these "
                f"targets allow, {at.lowest:.4g}: their own entropy.",
            )
        share = self._kept / self._numbers
        near = 0.9 * share <= at.gain <= 1.25 * share < 1 and at.lowest == 0
        if not (late and at.copies and near):
            return None
        if not at.reach() - at.gain < NOTHING:
            return None
        return self._finding(
            at,
            (),
            f"The loss of {at.now:.4g} has gone {at.gain:.0%} of its way: "
            f"{self._kept} units keep {share:.0%} of {self._numbers} numbers "
            "that do not depend on each other.",
            advice="Nothing is wrong; wider layers keep more.",
        )


def _bottleneck(anatomy: Anatomy) -> tuple[int, int]:
    """Units of the narrowest layer, and numbers that are to pass; 1, 1 else.

    All kernels must be those of dense layers, one after the other.
    """
    shapes = [
        v.shape for v in anatomy.variables if v.trainable and len(v.shape) > 1
    ]
    chain = all(len(s) == 2 for s in shapes) and all(
        a[-1] == b[0] for a, b in pairwise(shapes)
    )
    if len(shapes) < 2 or not chain or shapes[0][0] != shapes[-1][-1]:
        return 1, 1
    return min(s[-1] for s in shapes), shapes[-1][-1]
