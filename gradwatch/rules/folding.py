"""Folding: one fault makes one finding; its later symptoms are not told.

Rules do not know of each other. What they find passes here before it is told,
live and when a recording is judged again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradwatch.records import Finding

__all__ = ["Folding"]

_SETUP = (
    "missing_gradient",
    "output_mismatch",
    "target_mismatch",
    "constant_target",
    "bad_initialisation",
    "symmetric_weights",
    "unscaled_input",
    "unscaled_target",
)
_MECHANISMS = (
    "dominant_component",
    "frozen_variable",
    "skipped_updates",
    "zero_gradient",
    "dead_units",
    "saturated_units",
    "vanishing_gradient",
    "diverging_loss",
    "exploding_gradient",
    "update_too_large",
    "update_too_small",
    "negative_loss",
    "gradient_spike",
)
_SYMPTOMS = (
    "loss_spike",
    "oscillating_loss",
    "constant_output",
    "stalled_loss",
    "slow_loss",
    "clipping_always",
    "conflicting_components",
    "overfitting",
    "loss_floor",
)
_RANKS = {
    name: rank
    for rank, names in enumerate((_SETUP, _MECHANISMS, _SYMPTOMS))
    for name in names
}
_ORDER = (*_SETUP, *_MECHANISMS, *_SYMPTOMS)
_NEAR = 1000


class Folding:
    """Remembers what was told; leaves out what follows from it.

    Definition: three ranks. How a program is set up (a loss without gradient,
    targets that do not fit, data of a wrong scale) explains what its gradients
    and weights do, and both explain what the loss does. A finding is left out
    if one of its own rank or of a lower one was told before as a warning or
    worse; but each fault of the set-up is told, and so is the first critical
    finding. All others, non-finite numbers and liveness among them, always are.
    A fault explains what is said up to 1,000 steps later, or up to as many as
    had passed before it; what comes later is new.
    """

    def __init__(self) -> None:
        self._told: list[Finding] = []

    def __call__(self, found: Sequence[Finding]) -> Iterator[Finding]:
        """Yields what is to be told of the findings about one record.

        They are taken by the step at which each could be said first, causes
        before symptoms, so that it does not matter how records were cut.
        """
        for finding in sorted(found, key=_place):
            if not self._explained(finding):
                if finding.rule in _RANKS and finding.severity != "info":
                    self._told.append(finding)
                yield finding

    def _explained(self, finding: Finding) -> bool:
        rank = _RANKS.get(finding.rule, 0)
        if not rank:
            return False
        causes = [
            told
            for told in self._told
            if _RANKS[told.rule] <= rank
            and finding.last_step <= 2 * told.last_step + _NEAR
        ]
        if finding.severity == "critical":
            return any(told.severity == "critical" for told in causes)
        return bool(causes)


def _place(finding: Finding) -> tuple[int, int]:
    name = finding.rule
    return finding.last_step, _ORDER.index(name) if name in _ORDER else -1
