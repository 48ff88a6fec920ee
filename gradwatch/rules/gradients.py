"""Gradient flow: does every trainable variable hear from the loss?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradwatch.records import (
    Anatomy,
    Block,
    Cut,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.compiled import without_loss
from gradwatch.rules.cuts import FROZEN, advice, plain, reason
from gradwatch.rules.evidence import owner
from gradwatch.rules.wording import listed

__all__ = ["MissingGradient"]

_CUTS = 3
"""So many are told in words; the evidence holds all."""


class MissingGradient:
    """Trainable variables for which the tape returned no gradient at all.

    Definition: the variable is trainable, and the trace gave it no gradient
    (`None`), so no step can ever change it. Known from the trace, before the
    first step; it survives the error that Keras raises when all are missing.
    Where the graph of the step shows it, the finding names the operation and
    the line that cut the way from the variables to the loss; of a step that
    runs eagerly nothing is known. What the step does not ask a tape for, or
    does not hand to an optimizer, is told by `frozen_variable`; what it assigns
    itself (an average of weights, say) lacks nothing.
    Threshold: none. Critical if all variables are concerned, else warning.
    """

    name = "missing_gradient"
    severity: Severity = "critical"
    needs = ("variable_gradient_norm",)
    meaning = "The loss does not depend on a trainable variable."
    advice = (
        "If all are missing, the loss cuts the path: argmax, round, a cast to "
        "integers, a comparison or `stop_gradient`. If some are, the layer is "
        "not used or its output does not reach the loss."
    )

    def __init__(self) -> None:
        self._told: set[str] = set()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._step = schema.first_step
        self._trainable = [v.path for v in anatomy.variables if v.trainable]
        cuts = [cut for cut in anatomy.cuts if not cut.zero]
        aside = [cut for cut in cuts if cut.kind in (*FROZEN, "assigned")]
        self._cuts = [cut for cut in cuts if cut not in aside]
        known = {path for cut in aside for path in cut.variables}
        known |= schema.columns("variable_gradient_norm").keys()
        self._missing = [
            path
            for path in self._trainable
            if schema.slots and path not in known
        ]
        ends = {owner(path).split("/")[-1] for path in self._missing}
        self._silent = [n for n in without_loss(anatomy.loss) if n in ends]

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if not isinstance(record, Block) or set(self._missing) <= self._told:
            return
        self._told |= set(self._missing)
        everything = len(self._missing) == len(self._trainable)
        # Those that explain most of them first.
        cuts = sorted(self._cuts, key=lambda cut: -len(cut.variables))
        yield Finding(
            rule=self.name,
            severity="critical" if everything else "warning",
            subject=self._missing[0],
            first_step=self._step,
            last_step=self._step,
            evidence={
                "missing": list(self._missing),
                "trainable_variables": len(self._trainable),
                "cuts": [plain(cut) for cut in cuts],
            },
            causes=("loss_not_differentiable",) if everything else (),
            message=self._message(everything, cuts),
            advice=self._advice(cuts),
        )

    def _advice(self, cuts: Sequence[Cut]) -> str:
        if self._silent:
            return (
                f"Give `{self._silent[0]}` a loss in `compile`, or remove the "
                "output, or set `trainable = False` on its layers."
            )
        return advice(cuts[0]) if cuts else self.advice

    def _message(self, everything: bool, cuts: Sequence[Cut]) -> str:
        which = listed(self._missing)
        why = _reasons(self._missing, cuts)
        if everything:
            none = f"the loss does not depend on any of them ({which})"
            return f"No trainable variable has a gradient: {why or none}."
        some = f"{len(self._missing)} of {len(self._trainable)}"
        parts = [f"output `{name}` has no loss" for name in self._silent]
        told = "; ".join([*parts, why or which])
        return f"No gradient reaches {some} trainable variables: {told}."


def _reasons(missing: Sequence[str], cuts: Sequence[Cut]) -> str:
    """Tells each cut with its variables, `""` if there is none."""
    parts = [f"{reason(c)} ({listed(c.variables)})" for c in cuts[:_CUTS]]
    if len(cuts) > _CUTS:
        parts.append(f"and {len(cuts) - _CUTS} more places")
    known = {name for cut in cuts for name in cut.variables}
    rest = [name for name in missing if name not in known]
    if cuts and rest:
        parts.append(f"for {listed(rest)} no reason is known")
    return "; ".join(parts)
