"""Whether a loss is least where the prediction is its target.

Of what usually is the best prediction (`ideals.py`), one must be: no other
prediction, drawn or reached by gradient descent, may be clearly better. A
regulariser moves the minimum a trace, and only that: its compromise lies a
little lower than the target, but not as low as with a perfect fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwatch.audit.compared import exchanged, independent, unjudged
from gradwatch.audit.ideals import ideals
from gradwatch.audit.points import shown
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.single import Single
from gradwatch.audit.subject import Subject
from gradwatch.audit.trial import Trial, elsewhere, trial

__all__ = ["minimum"]

_SLOW = 2e-3
"""Seconds for one value, above which this would take too long."""

_FEW = 0.25
"""Share of targets for which the best prediction may not be the best: some may
be none that the loss takes (a box whose corners are exchanged)."""

_ADVICE = (
    "Check signs, and which argument is which: fit calls a loss as "
    "`loss(y_true, y_pred)`."
)


def minimum(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Says whether a loss has its minimum at the target, and how low it is."""
    if subject.kind != "loss" or len(subject.trained) != 1:
        return
    single = Single(subject)
    if not single.connected:
        return  # a metric, no loss: `flow` tells
    why = "it is slow" if single.seconds > _SLOW else unjudged(subject, single)
    if not why and independent(subject, single):
        yield _unmoved(subject)
        return
    if not why and exchanged(subject, single):
        yield _exchanged(subject)
        return
    found = [] if why else list(_every(subject, single))
    if not why and not found:
        why = "prediction and target have different shapes"
    if why:
        text = f"whether the minimum is at the target: not judged, as {why}."
        yield Measurement("minimum_not_judged", "", "", text)
        yield from _negative(subject, single, None)
        return
    accepted = [one for one in found if one.share < _FEW]
    if accepted and not elsewhere(single, found[0]):
        best = next((one for one in accepted if one.zero), accepted[0])
        yield from _right(subject, single, best)
    else:
        yield _wrong(subject, found[0])


def _every(subject: Subject, single: Single) -> Iterator[Trial]:
    """Yields what may be the best predictions, until one is that."""
    for k, ideal in enumerate(ideals(single.targets, single.predictions)):
        tried = trial(subject.generator(24), single, ideal)
        yield tried
        if tried.share < _FEW and tried.zero:
            return
        if k == 0 and elsewhere(single, tried):
            return


def _right(
    subject: Subject, single: Single, tried: Trial
) -> Iterator[AuditFinding | Measurement]:
    cost = float(np.median(tried.cost))
    what = "for hard targets" if tried.ideal.hard else "at the target"
    text = f"the least value, {what}: no prediction has a clearly lower one"
    yield Measurement("minimum", "", cost, f"{text}.")
    yield from _floor(subject, single, tried)
    yield from _negative(subject, single, tried)


def _floor(
    subject: Subject, single: Single, tried: Trial
) -> Iterator[Measurement]:
    """What soft targets cost, though they be met exactly."""
    if not tried.ideal.hard or single.targets.whole:
        return
    if tried.ideal.low < 0 or tried.ideal.high > 1:
        return
    soft = 0.8 * tried.targets + (
        0.2 / tried.targets.shape[-1] if tried.ideal.simplex else 0.1
    )
    value = float(np.median(single.values(soft, soft)))
    if value > 1e-3 and value > 2 * abs(float(np.median(tried.cost))):
        text = "a perfect prediction costs this for targets that are 90 % sure"
        if tried.ideal.simplex:
            text = text.replace("90 %", "80 %")
        yield Measurement(
            "soft_floor", "", value, f"{text} (their entropy, if it is one)."
        )


def _negative(
    subject: Subject, single: Single, tried: Trial | None
) -> Iterator[AuditFinding]:
    """A value below 0: by a term that is meant so, a density's say."""
    if tried is None:
        targets, lower = single.draw(subject.generator(25), 64)
        least = single.values(targets, lower)
    else:
        targets, lower, least = tried.targets, tried.best, tried.cost
    least = np.where(np.isfinite(least), least, 0.0)
    k = int(np.argmin(least))
    if least[k] >= -1e-6:
        return
    same = tried is not None and np.ptp(least) <= 1e-3 * abs(least[k])
    bound = ", and that is its bound" if same else ""
    yield AuditFinding(
        check="negative_value",
        severity="info",
        subject="",
        message=f"The value can be below 0: {least[k]:.4g} was seen{bound}. "
        "Training is the same with it; do not stop it at a loss of 0.",
        inputs=_example(subject, targets[k], lower[k]),
        source=subject.source,
    )


def _wrong(subject: Subject, tried: Trial) -> AuditFinding:
    with np.errstate(all="ignore"):
        drop = np.nan_to_num(tried.cost - tried.least, nan=np.inf)
    k = int(np.argmax(drop))
    share = float(np.mean(drop > 0))
    every = tried.right < _FEW
    (i,) = subject.trained
    return AuditFinding(
        check="not_at_minimum",
        severity="warning" if every else "info",
        subject=subject.inputs[i].name,
        message=(
            "The loss is not least where the prediction is the target: for "
            f"{100 * share:.0f} % of the targets another prediction is better"
            f", here {tried.least[k]:.4g} instead of {tried.cost[k]:.4g}."
        ),
        inputs=_example(subject, tried.targets[k], tried.lower[k]),
        values={
            "best_expected": shown(tried.best[k]),
            "loss_there": float(tried.cost[k]),
            "loss_here": float(tried.least[k]),
        },
        source=subject.source,
        advice=_ADVICE,
    )


def _unmoved(subject: Subject) -> AuditFinding:
    (i,) = subject.trained
    target = subject.inputs[1 - i].name
    return AuditFinding(
        check="not_at_minimum",
        severity="warning",
        subject=subject.inputs[i].name,
        message=(
            f"The gradient is the same whatever `{target}` is: the value "
            "is a sum of what depends on one and what depends on the other, "
            "so nothing is learned of the target."
        ),
        source=subject.source,
        advice="Compare the two before they are summed: a square, a product.",
    )


def _exchanged(subject: Subject) -> AuditFinding:
    (i,) = subject.trained
    name, target = subject.inputs[i].name, subject.inputs[1 - i].name
    return AuditFinding(
        check="not_at_minimum",
        severity="warning",
        subject=name,
        message=(
            f"The loss is a straight line in `{name}`, but not in `{target}`: "
            "it is least at a bound, never between, as if the two were "
            "exchanged."
        ),
        source=subject.source,
        advice=_ADVICE,
    )


def _example(subject: Subject, target: Any, prediction: Any) -> dict[str, Any]:
    (i,) = subject.trained
    pair = {i: prediction, 1 - i: target}
    return {
        one.name: shown(np.asarray(pair[k]))
        for k, one in enumerate(subject.inputs)
    }
