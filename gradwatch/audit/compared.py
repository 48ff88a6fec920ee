"""Whether a loss compares a prediction with its target, example by example.

Only of such a loss it can be said where its minimum should be. A contrastive
loss compares examples with each other, a critic's loss has no minimum, a
density's parameters are no prediction of the target's form.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from gradwatch.audit.single import Single
from gradwatch.audit.subject import Subject

__all__ = ["exchanged", "grouped", "independent", "named", "unjudged"]

_COUNT = 12
_ENTRIES = 8
_WIDE = 16.0

_TARGET = re.compile(
    r"y|t|gt|y_?t|(y_?)?(true|truth|targets?|labels?|actual|expected|"
    r"reference|ref)|ground_?truth",
    re.I,
)
_PREDICTION = re.compile(
    r"p|y_?p|pred\w*|y_?pred\w*|y_?hat|logits?|outputs?|prob\w*|y_?logits?|"
    r"estimate\w*|forecast\w*|recon\w*|approx\w*|guess\w*|q",
    re.I,
)
_PEERS = re.compile(
    r"embed|anchor|positive|negative|real|fake|generated|dist|view|query|key|"
    r"feat|^z|sim|critic|advantage|reward",
    re.I,
)
"""Names of arguments that are not a target and its prediction."""


def unjudged(subject: Subject, single: Single) -> str:
    """Returns why its minimum says nothing, `""` if it compares the two."""
    if not named(subject):
        return "its arguments are not named as a target and a prediction are"
    targets, predictions = single.draw(subject.generator(21), _COUNT)
    others = _others(targets), _others(predictions)
    before = single.values(targets, predictions)
    moved = single.values(others[0], predictions)
    if not _differ(single, before, moved):
        return "alone, an example's value does not depend on its target"
    moved = single.values(targets, others[1])
    if not _differ(single, before, moved):
        return "a single example has no loss: it compares examples"
    if grouped(subject, single):
        return "labels tell only which examples belong together"
    if independent(subject, single):
        return ""
    open_ = single.predictions.kind not in ("unit", "range", "simplex")
    if open_ and _linear(single, targets, predictions):
        return "it is linear in the prediction, and has no minimum"
    if single.targets.kind != "ids" and not _paired(single, subject):
        return "parts of the prediction are not compared with the target's"
    if _apart(single):
        return "it is a distance with a margin, by which pairs are kept apart"
    return ""


def named(subject: Subject) -> bool:
    """Whether arguments are named as a target and a prediction are."""
    names = [one.name for one in subject.inputs]
    (i,) = subject.trained
    known = _TARGET.fullmatch(names[1 - i]) or _PREDICTION.fullmatch(names[i])
    return bool(known) and not any(map(_PEERS.search, names))


def independent(subject: Subject, single: Single) -> bool:
    """Whether the gradient is the same for all targets."""
    targets, predictions = single.draw(subject.generator(22), _COUNT)
    mixed, size = _mixed(
        single, (targets, _others(targets)), (predictions, _others(predictions))
    )
    return bool((np.abs(mixed) <= single.small * size).all())


def exchanged(subject: Subject, single: Single) -> bool:
    """Whether it is linear in a bounded prediction, but not in the target.

    What is linear in both (a sum of products) is meant for hard targets.
    """
    bounded = ("unit", "range", "simplex")
    soft = (*bounded, "given", "positive")
    if single.predictions.kind not in bounded:
        return False
    if single.targets.kind not in soft or single.targets.whole:
        return False
    if single.targets.shape != single.predictions.shape:
        return False
    targets, predictions = single.draw(subject.generator(26), _COUNT)
    if not _linear(single, targets, predictions):
        return False
    if np.isin(targets, (0.0, 1.0)).all():
        return False
    ends = targets, _others(targets)
    found = [single.values(t, predictions) for t in (*ends, sum(ends) / 2)]
    with np.errstate(all="ignore"):
        off = np.abs(found[0] + found[1] - 2 * found[2])
    return bool(np.nanmedian(off / np.abs(found).sum(0)) > 1e-3)


def _others(rows: Any) -> Any:
    """The same rows, each in the place of another."""
    return np.roll(rows, 1, axis=0)


def _differ(single: Single, one: Any, other: Any) -> bool:
    with np.errstate(all="ignore"):
        finite = np.isfinite(one) & np.isfinite(other)
        apart = np.abs(one - other) > single.small * (np.abs(one) + 1e-12)
    return bool((finite & apart).any())


def _mixed(
    single: Single, targets: tuple[Any, Any], predictions: tuple[Any, Any]
) -> tuple[Any, Any]:
    """Mixed differences `[K]`, and the size of what they are made of."""
    found = [single.values(t, p) for t in targets for p in predictions]
    size = np.abs(found).sum(0) + 1e-12
    mixed = found[0] - found[1] - found[2] + found[3]
    usable = np.isfinite(size) & np.isfinite(mixed)
    return np.where(usable, mixed, 0.0), np.where(usable, size, 1.0)


def grouped(subject: Subject, single: Single) -> bool:
    """Whether another number for each class changes nothing."""
    if single.targets.kind != "ids":
        return False
    targets, predictions = single.draw(subject.generator(21), _COUNT)
    low, high = single.targets.low, single.targets.high
    shifted = low + (targets - low + 1) % (high - low + 1)
    before = single.values(targets, predictions)
    after = single.values(shifted, predictions)
    return not _differ(single, before, after)


def _linear(single: Single, targets: Any, predictions: Any) -> bool:
    """Whether the value of the middle is the middle of the values."""
    wide = 4.0 * predictions if single.predictions.kind == "real" else (
        predictions
    )  # fmt: skip
    ends = wide, _others(wide)
    found = [single.values(targets, p) for p in (*ends, sum(ends) / 2)]
    size = np.abs(found).sum(0) + 1e-12
    off = np.abs(found[0] + found[1] - 2 * found[2])
    usable = np.isfinite(size)
    return bool(usable.any() and (off <= single.small * size)[usable].all())


def _paired(single: Single, subject: Subject) -> bool:
    """Whether each number of a prediction meets the same of the target."""
    random = subject.generator(23)
    targets, predictions = single.draw(random, _COUNT)
    others = _opposite(single, targets), _others(predictions)
    places = np.arange(int(np.prod(predictions.shape[1:])))
    if predictions.shape != targets.shape:
        return False
    if len(places) > _ENTRIES:
        places = random.choice(places, _ENTRIES, replace=False)
    for place in places:
        pairs = [
            (rows, _exchanged(rows, other, int(place)))
            for rows, other in zip((targets, predictions), others)
        ]
        mixed, size = _mixed(single, pairs[0], pairs[1])
        if (np.abs(mixed) <= single.small * size).all():
            return False
    return True


def _opposite(single: Single, targets: Any) -> Any:
    """Other targets, different in each number where they are classes."""
    if single.targets.kind in ("binary", "one_hot"):
        return 1.0 - targets
    return -targets if single.targets.kind == "signs" else _others(targets)


def _exchanged(rows: Any, others: Any, place: int) -> Any:
    """Rows in which one number is another's."""
    found = rows.copy()
    found.reshape(len(rows), -1)[:, place] = others.reshape(len(rows), -1)[
        :, place
    ]
    return found


def _apart(single: Single) -> bool:
    """Whether 1 means near and 0 means far, from some distance on alike."""
    domain = single.predictions
    ranged = domain.kind == "range" and domain.low >= 0 and domain.high > 1
    if domain.kind not in ("real", "positive") and not ranged:
        return False
    if single.predictions.shape != single.targets.shape:
        return False
    sizes = np.linspace(0.01, domain.high if ranged else _WIDE, 24)
    shape = single.predictions.shape[1:]
    distances = np.ones((24, *shape)) * sizes.reshape(-1, *[1] * len(shape))
    near = single.values(np.ones_like(distances), distances)
    far = single.values(np.zeros_like(distances), distances)
    if not np.isfinite([near, far]).all():
        return False
    grows = bool((np.diff(near) > 0).all())
    margin = far[0] > far[-1] and far[-4:].max() == far[-4:].min()
    return grows and bool(margin)
