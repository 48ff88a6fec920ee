"""Whether the gradient is right: TensorFlow's against differences.

At random points and at special ones (zeros, ties, a prediction that is its
target): for each number of a small input, in random directions of a large one,
where an error in a single number shows as well in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwatch.audit.blame import found_in
from gradwatch.audit.evaluation import Evaluation, evaluation
from gradwatch.audit.lines import Compared, compare, coordinates, directions
from gradwatch.audit.points import Points, points
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.stencils import KINK, OUTSIDE, STEPS, UNJUDGED, WRONG
from gradwatch.audit.subject import Subject

__all__ = ["gradient"]

_SMALL = 64
"""Numbers in the inputs up to which each is looked at."""

_SECONDS = 1.0
"""Time for the differences of one mode; fewer lines are looked at in it."""

_ZOOM = 256
"""So many numbers of an input are looked at where a direction is wrong."""

_EACH = 3
"""Directions of each input at each point."""

_MOVE = 0.01
"""How far a point is moved to see whether it is the only one: of its size."""


_CLOSE = 1e-5
_NEIGHBOURS = 24
"""Points so near, and so many, tell what gradients there are around a point."""

_SLACK = 1e-2


def gradient(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Compares gradients with differences of the value."""
    told: set[tuple[str, str]] = set()
    for training in subject.modes if subject.trained else ():
        made = evaluation(subject, training)
        drawn = points(subject, made)
        if _as_before(subject, made, drawn):
            continue
        if not _repeats(made, drawn.vectors):
            text = "Two calls give different results: not deterministic."
            yield Measurement("gradient_not_checked", "", "random", text)
            continue
        for said in _mode(subject, made, drawn):
            name = said.check if isinstance(said, AuditFinding) else said.name
            if (name, said.subject) not in told:
                yield said
            told.add((name, said.subject))


def _as_before(subject: Subject, made: Evaluation, drawn: Points) -> bool:
    """Whether the mode makes no difference to one that was looked at."""
    if not made.training or False not in subject.modes:
        return False
    before = evaluation(subject, False).outputs(drawn.vectors)
    return bool(np.array_equal(made.outputs(drawn.vectors), before))


def _repeats(made: Evaluation, vectors: Any) -> bool:
    """Whether the same point gives the same results, also a second time."""
    first = made.outputs(vectors[[0, 0, 1]])
    again = made.outputs(vectors[[0, 0, 1]])
    pairs = (first, again), (first[0], first[1])
    return all(
        np.allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=True)
        for a, b in pairs
    )


def _mode(
    subject: Subject, made: Evaluation, drawn: Points
) -> Iterator[AuditFinding | Measurement]:
    slopes = made.gradients(drawn.vectors, drawn.upstream)
    each = _compared(subject, made, drawn, slopes)
    for i in subject.trained:
        if not made.connected[i]:
            continue  # `flow` tells
        own = each.take(each.lines.inputs == i)
        bad = own.take(own.verdicts >= OUTSIDE)
        if not len(bad.verdicts):
            yield _measured(subject, made, own, i)
            continue
        told = _region(subject, made, bad) or _isolated(subject, made, bad)
        if told is None:
            yield _measured(subject, made, own, i)
            continue
        single = bool(told.drawn.special[told.lines.points].all())
        worst = _zoomed(subject, made, told)
        yield found_in(subject, made, each, worst, i, isolated=single)


def _compared(
    subject: Subject, made: Evaluation, drawn: Points, slopes: Any
) -> Compared:
    parts = [made.slices[i] for i in subject.trained]
    if sum(part.stop - part.start for part in parts) <= _SMALL:
        lines = coordinates(subject, made, drawn, _SMALL)
    else:
        lines = directions(subject, made, drawn, _EACH)
    most = int(_SECONDS / (made.seconds(drawn.vectors) * 2 * len(STEPS)))
    if len(lines.points) > most:
        random = subject.generator(10)
        every = np.arange(len(lines.points))
        some = random.choice(every, max(most, 32), replace=False)
        lines = lines.take(np.sort(some))
    return compare(made, drawn, lines, slopes)


def _region(
    subject: Subject, made: Evaluation, bad: Compared
) -> Compared | None:
    """Lines that are wrong not only at a single point, `None` if none are.

    A random point is never a single one; special points are moved a little.
    """
    sure = bad.take(bad.verdicts == WRONG)
    drawn = sure.take(~bad.drawn.special[sure.lines.points])
    if len(drawn.verdicts):
        return drawn
    chosen = np.unique(bad.lines.points)
    vectors = _near(subject, made, bad.drawn.vectors, _MOVE, 0)
    moved = Points(vectors, np.zeros(len(vectors), bool), bad.drawn.upstream)
    slopes = np.zeros_like(vectors)
    slopes[chosen] = made.gradients(vectors[chosen], moved.upstream[chosen])
    again = compare(made, moved, bad.lines, slopes)
    again = again.take(again.verdicts == WRONG)
    return again if len(again.verdicts) else None


def _isolated(
    subject: Subject, made: Evaluation, bad: Compared
) -> Compared | None:
    """Lines on which a gradient is none that the points nearby have, either.

    Where several numbers are alike (a sort, a maximum), what TensorFlow takes
    is the gradient of one of the ways to tell them apart: that is right.
    """
    bad = bad.take(bad.lines.places >= 0)
    if not len(bad.verdicts):
        return None
    near = []
    for k in range(_NEIGHBOURS):
        vectors = _near(subject, made, bad.drawn.vectors, _CLOSE, k + 1)
        slopes = made.gradients(vectors, bad.drawn.upstream)
        own = slopes[bad.lines.points, bad.lines.places]
        near.append(own * bad.lines.width)
    low, high = np.min(near, 0), np.max(near, 0)
    slack = _SLACK * np.maximum(np.abs(bad.claimed), np.abs(bad.slopes))
    away = np.maximum(low - bad.claimed, bad.claimed - high)
    bad = bad.take(away > slack)
    return bad if len(bad.verdicts) else None


def _near(
    subject: Subject, made: Evaluation, vectors: Any, width: float, salt: int
) -> Any:
    """Points beside `vectors`, `width` of their size away in all numbers."""
    found = vectors.copy()
    random = subject.generator(11, salt)
    for i in subject.trained:
        part = made.slices[i]
        size = np.abs(vectors[:, part])
        usual = np.median(size, axis=1, keepdims=True)
        size = np.maximum(size, np.where(usual > 0, usual, 1.0))
        noise = random.uniform(0.5, 1.0, size.shape) * width * size
        found[:, part] += noise * random.choice([-1.0, 1.0], size.shape)
    return found


def _zoomed(subject: Subject, made: Evaluation, bad: Compared) -> Compared:
    """Single numbers that are wrong, where a direction is."""
    if (bad.lines.places >= 0).all():
        return bad
    (i,) = set(bad.lines.inputs.tolist())
    chosen = bad.lines.points[np.argsort(-_relative(bad), kind="stable")[:1]]
    few = Points(*(column[chosen] for column in bad.drawn))
    lines = coordinates(subject, made, few, _ZOOM, only=i)
    slopes = made.gradients(few.vectors, few.upstream)
    each = compare(made, few, lines, slopes)
    each = each.take(each.verdicts >= OUTSIDE)
    return each if len(each.verdicts) else bad


def _relative(bad: Compared) -> Any:
    off = np.abs(bad.claimed - bad.slopes)
    largest = np.maximum(np.abs(bad.claimed), np.abs(bad.slopes))
    return off / np.maximum(largest, 1e-300)


def _measured(
    subject: Subject, made: Evaluation, own: Compared, i: int
) -> Measurement:
    """How many derivatives agree, and how well."""
    judged = own.verdicts != UNJUDGED
    smooth = judged & (own.verdicts != KINK) & np.isfinite(own.slopes)
    scale = np.abs(own.claimed[smooth]).max(initial=1e-300)
    error = np.abs(own.claimed - own.slopes)[smooth].max(initial=0.0) / scale
    kinks = int((own.verdicts == KINK).sum())
    dtype = "float32" if own.single else "float64"
    text = f"derivatives agree with differences in {dtype}"
    text += f", {kinks} of them at kinks" if kinks else ""
    text += f"; largest error {error:.1g} of the largest derivative"
    left = int((~judged).sum())
    broken = int((~np.isfinite(own.claimed)).sum())
    why = f", {broken} are not finite" if broken else ""
    text += f"; {left} more could not be judged{why}" if left else ""
    name = subject.inputs[i].name
    return Measurement("gradient_right", name, int(judged.sum()), f"{text}.")
