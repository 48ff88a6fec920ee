"""Stalls: a loss that does not fall, and what only looks like one."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.order import SHUFFLE
from gradwatch.rules.progress import Progress
from gradwatch.rules.standing import MISSCALED, SCALE_FIRST, Standing

__all__ = [
    "LEAST",
    "NOTHING",
    "ConstantOutput",
    "OfProgress",
    "SlowLoss",
    "StalledLoss",
]

LEAST = 128
"""Steps; before them nothing is said about progress."""

NOTHING = 0.05
"""Share of the way to the lowest loss that counts as none."""

_FIFTH = 0.2
_ALIKE = 0.125
_VISIBLE = 0.005  # of a loss, in a message
_SMALL = 1e-30


def _late(at: Standing) -> bool:
    """Whether three quarters of the plan are over."""
    return at.seen >= max(LEAST, 0.75 * at.plan)


def _gained(at: Standing, gain: float) -> bool:
    """Whether `gain` is more than nothing.

    A constant from few batches is uncertain; their own losses are not. Who
    knows nothing is never better on a batch than the constant that fits it.
    """
    if at.least >= NOTHING:
        return True
    return not (gain < NOTHING or (gain < 0.15 and at.paired < NOTHING))


def _stalled(at: Standing) -> bool:
    """Late, nothing is gained, nor on its way."""
    gain = max(at.gain, at.gain_at(at.newest))
    return _late(at) and not _gained(at, gain) and not at.falling()


def _proved(at: Standing) -> bool:
    """Whether numbers show that there is no progress, see `StalledLoss`."""
    if not at.reach() < _FIFTH:
        return False
    if not math.isfinite(at.highest):
        return not at.has_fallen()
    most = (at.highest - at.now) / max(at.highest - at.lowest, _SMALL)
    return at.ignorant() or most < (NOTHING if math.isnan(at.spread) else 0)


def _risen(at: Standing) -> bool:
    """Whether a message can say that the loss has risen."""
    return at.now - at.first > _VISIBLE * abs(at.first)


def _next_to(at: Standing) -> str:
    """Says how the loss compares with knowing nothing."""
    base, what = at.constant, "which a constant answer has"
    risen = f"has risen from {at.first:.4g}, where it began"
    if math.isnan(base):
        base, what = at.first, "where it began"
        if _risen(at):
            return f"it {risen}"
    better = (base - at.now) / max(abs(base), _SMALL)
    said = f"is no better than {base:.4g}, {what}"
    if better > _VISIBLE:
        said = f"is only {better:.1%} below {base:.4g}, {what}"
    return f"it {said}, and {risen}" if _risen(at) else f"it {said}"


class OfProgress(abc.ABC):
    """What they share: each looks at where the run stands, and tells once."""

    name: str
    severity: Severity
    advice: str

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._progress.begin(anatomy, schema)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for at in self._progress.stands(record):
            found = None if self._told else self._look(at)
            if found is not None:
                self._told = True
                yield found

    @abc.abstractmethod
    def _look(self, at: Standing) -> Finding | None:
        """Returns what there is to tell, if anything."""

    def _finding(
        self,
        at: Standing,
        causes: tuple[str, ...],
        said: str,
        where: str = "",
        advice: str = "",
    ) -> Finding:
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=where,
            first_step=max(0, at.step - at.seen + 1),
            last_step=at.step,
            evidence={
                "loss_first": at.first,
                "loss_now": at.now,
                "loss_of_constant": at.constant,
                "loss_lowest": at.lowest,
                "spread_of_predictions": at.spread,
            },
            causes=causes,
            message=said,
            advice=advice or self.advice,
        )


class StalledLoss(OfProgress):
    """The loss makes no progress although a lower one is reachable.

    Definition: after at least 128 steps and three quarters of the plan (5,000
    steps if it is not known, 10,000 at most), the loss is not 5 % of the way
    from the best constant answer down to the lowest loss of these targets
    (of the first loss, where these are not known; or 15 %, if by the X-rays'
    own batches, each against its own constant, it is not 5 %), not all X-rays
    of the second half were better than their own constants by 5 % (who knows
    nothing never is: that constant fits the batch best), and the second half of
    its window medians does not fall (Kendall's test, 5 %). Batches whose
    targets are all alike do not count, one that comes again counts once.
    That a loss is not seen to fall is no evidence yet; so two things have to be
    proved. No fall that noise hides may bring it a fifth of the way by the end
    of the plan: at 97.5 %, with the noise measured (`Standing.reach`). And
    there must be more to be known than the little that the model knows, for one
    of returns or clicks explains 1 or 5 % and has converged: by the X-rays,
    its predictions know less than they say (`Standing.ignorant`, 100 to 1); or
    the loss is not better even than the highest constant that X-rays allow
    (99.5 %; not 5 % better, if it is not known how much predictions say); or,
    if no constant is known (of two X-rays, whose targets are not all alike), it
    is not below the first by more than noise.
    False alarms: runs that know what they say and converge at 2, 4 or 9 %, by
    normal or heavy-tailed targets, 150 to 1,500 steps of 32 or 128 examples,
    made up: 2 % at most, where a test for the fall alone told up to 60 %.
    Threshold: a run that has converged has left the constant answer behind;
    plateaus at its level may end (sequences to be memorised, say), so most of
    the plan is waited for. Silent with several optimizers (adversaries), at the
    floor, and where predictions are constant, which is a finding of its own.
    Told once.
    """

    name = "stalled_loss"
    severity: Severity = "warning"
    needs = ("loss",)
    meaning = "The loss does not fall although a lower one is reachable."
    advice = (
        "Try to learn one batch by heart: if that fails, look at the loss, the "
        "labels and the rate; if it works, the model or its inputs cannot tell "
        "the examples apart."
    )

    def _look(self, at: Standing) -> Finding | None:
        if not _stalled(at) or at.spread < _ALIKE or not _proved(at):
            return None
        causes = ("learning_rate_high", "learning_rate_low", "data")
        if math.isnan(at.constant) and _risen(at):
            causes = ("wrong_sign", "learning_rate_high", "data")
        order = at.in_order()
        return self._finding(
            at,
            ("data",) if order else causes,
            f"The loss makes no progress: after {at.seen} steps it is "
            f"{at.now:.4g}; {_next_to(at)}.{order}",
            advice=SHUFFLE if order else "",
        )


class ConstantOutput(OfProgress):
    """Predictions hardly depend on the example, and the loss shows it.

    Definition: after three quarters of the plan, as for `stalled_loss`,
    predictions vary over the examples, in the last two X-rays, by less than an
    eighth of what they would if all was known: of the targets' standard
    deviation or, for rows of probabilities around p, of sqrt(p (1 - p)); they
    vary by less than half of what they did at the first X-ray, or the loss does
    not fall; and it has not gone 5 % of its way down from the best constant
    answer (15 %, if by the X-rays' own batches, each against its own constant,
    it is not 5 %) or, if that is not known, not fallen by 5 % since those
    X-rays: where steps are fast they may be old, and what has been learned
    meanwhile has changed the predictions. Or, at once, in two X-rays all inputs
    of the batch are the same, and the loss has not fallen by 5 %. Told once.
    """

    name = "constant_output"
    severity: Severity = "warning"
    needs = ("loss",)
    meaning = "The model predicts nearly the same for every example."
    advice = (
        "Look at what reaches the last layer: inputs that are all the same, "
        "units that are silent or saturated, a penalty that is too strong; "
        "or the inputs do not tell the targets."
    )

    def _look(self, at: Standing) -> Finding | None:
        if at.inputs == 0 and at.gain < NOTHING:
            said = "All inputs of a batch are the same, so all predictions are."
            return self._finding(at, ("data",), said, "inputs")
        less = at.spread < 0.5 * at.began or not at.falling()
        nothing = not _gained(at, at.gain)
        if math.isnan(at.constant):
            nothing = not at.fallen >= NOTHING
        if not (at.spread < _ALIKE and _late(at) and nothing and less):
            return None
        return self._finding(
            at,
            ("dead_units", "data"),
            "The model predicts nearly the same for every example: predictions "
            f"vary by {at.spread:.1%} of what they should, and the loss is "
            f"{at.now:.4g} after {at.seen} steps.",
            "predictions",
        )


class SlowLoss(OfProgress):
    """The loss falls, but the plan will be over long before it is low.

    Definition: after half of the plan, and at least 128 steps, the loss has not
    gone a fifth of the way from the best constant answer (or its first value)
    to the lowest, and at the pace of the second half it will not have gone
    two fifths when the plan is over, although it falls (Kendall's test, 5 %).
    A rate to raise is not the advice where the first loss was a thousand times
    that of a constant (`Standing.far_off`). Told once.
    """

    name = "slow_loss"
    severity: Severity = "info"
    needs = ("loss",)
    meaning = "The loss falls, but too slowly for the steps planned."
    advice = "Raise the learning rate by three to ten, or plan more steps."

    def _look(self, at: Standing) -> Finding | None:
        late = at.seen >= max(LEAST, 0.5 * at.plan)
        most = max(at.gain, at.gain_at(at.newest))
        if not late or most >= _FIFTH or not at.falling():
            return None
        slope = at.slope()
        end = at.now - slope * max(0, at.plan - at.seen)
        if slope <= 0 or at.gain_at(end) >= 0.4:
            return None
        return self._finding(
            at,
            MISSCALED if at.far_off else ("learning_rate_low",),
            f"The loss falls slowly: {at.first:.4g} at first, {at.now:.4g} "
            f"after {at.seen} steps; at this pace it will be {end:.4g} after "
            f"the {at.plan} that are planned.{at.began_far_off()}",
            advice=SCALE_FIRST if at.far_off else "",
        )
