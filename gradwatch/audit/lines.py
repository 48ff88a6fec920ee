"""Lines through points, and verdicts on the derivatives along them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gradwatch.audit.evaluation import Evaluation
from gradwatch.audit.points import Points
from gradwatch.audit.stencils import STEPS, STEPS_SINGLE, Stencil, judge
from gradwatch.audit.subject import Subject

__all__ = ["Compared", "Lines", "compare", "coordinates", "directions"]

_MOST = 4_000_000
"""Numbers that are handed to TensorFlow at once, 32 MB."""


class Lines(NamedTuple):
    """Directions through points.

    Attributes:
        points: int `[Q]`, number of the point.
        inputs: int `[Q]`, number of the input that changes along the line.
        places: int `[Q]`, the coordinate in a point's vector that changes, -1
            where several do.
        seeds: int `[Q]`, of a line on which all numbers of an input change.
        width: float64 `[Q]`: how far one step of 1 goes.
    """

    points: Any
    inputs: Any
    places: Any
    seeds: Any
    width: Any

    def take(self, chosen: Any) -> Lines:
        """Returns some of the lines."""
        return Lines(*(column[chosen] for column in self))

    def direction(self, q: int, made: Evaluation) -> tuple[slice, Any]:
        """Returns what of a vector changes along line `q`, and how."""
        if self.places[q] >= 0:
            place = int(self.places[q])
            return slice(place, place + 1), self.width[q : q + 1]
        part = made.slices[self.inputs[q]]
        random = np.random.default_rng(int(self.seeds[q]))
        return part, self.width[q] * random.normal(size=part.stop - part.start)


class Compared(NamedTuple):
    """Lines and the verdicts on them.

    Attributes:
        drawn: the points.
        lines: through them.
        verdicts: int `[Q]`, see `stencils.RIGHT`.
        slopes: float64 `[Q]`, by differences.
        flat: bool `[Q]`, whether the value is constant around the point.
        claimed: float64 `[Q]`, by TensorFlow's gradient.
        single: whether it was computed in float32.
    """

    drawn: Points
    lines: Lines
    verdicts: Any
    slopes: Any
    flat: Any
    claimed: Any
    single: bool

    def take(self, chosen: Any) -> Compared:
        """Returns some of the lines."""
        return self._replace(
            lines=self.lines.take(chosen),
            verdicts=self.verdicts[chosen],
            slopes=self.slopes[chosen],
            flat=self.flat[chosen],
            claimed=self.claimed[chosen],
        )


def coordinates(
    subject: Subject,
    made: Evaluation,
    drawn: Points,
    few: int,
    only: int | None = None,
) -> Lines:
    """Returns a line for each number of the inputs that are trained.

    Args:
        subject: of which.
        made: its evaluation.
        drawn: the points.
        few: at most so many numbers of each input, at random, at each point.
        only: number of the one input that is asked for, `None` for all.
    """
    random = subject.generator(9)
    rows = []
    for i in subject.trained if only is None else (only,):
        part = made.slices[i]
        places = np.arange(part.start, part.stop)
        for p, vector in enumerate(drawn.vectors):
            some = places
            if len(places) > few:
                some = np.sort(random.choice(places, few, replace=False))
            usual = np.median(np.abs(vector[part])) or 1.0
            width = np.maximum(np.abs(vector[some]), usual)
            rows += [(p, i, c, 0, w) for c, w in zip(some, width)]
    return _columns(rows)


def directions(
    subject: Subject, made: Evaluation, drawn: Points, each: int
) -> Lines:
    """Returns random directions in each input that is trained.

    Args:
        subject: of which.
        made: its evaluation.
        drawn: the points.
        each: so many through each point.
    """
    rows = []
    for i in subject.trained:
        for p, vector in enumerate(drawn.vectors):
            usual = np.median(np.abs(vector[made.slices[i]])) or 1.0
            for k in range(each):
                seed = (i * 1000 + p) * 10 + k
                rows.append((p, i, -1, seed, usual))
    return _columns(rows)


def _columns(rows: list[Any]) -> Lines:
    table = np.array(rows, float).reshape(-1, 5)
    whole = table[:, :4].astype(int)
    points, inputs, places, seeds = whole.T
    return Lines(points, inputs, places, seeds, table[:, 4])


def compare(
    made: Evaluation, drawn: Points, lines: Lines, slopes: Any
) -> Compared:
    """Judges the derivatives along lines.

    Args:
        made: an evaluation.
        drawn: points.
        lines: through them.
        slopes: float64 `[P, N]`, gradients that are claimed.
    """
    single = made.single(drawn.vectors)
    steps = STEPS_SINGLE if single else STEPS
    shifts = np.array([s * h for h in steps for s in (1, -1)])
    results = made.outputs(drawn.vectors)
    width = drawn.vectors.shape[1] + 4 * results.shape[1]
    chunk = max(1, _MOST // (width * len(shifts)))
    stencils, claimed, reference = [], [], []
    for first in range(0, len(lines.points), chunk):
        some = np.arange(first, min(first + chunk, len(lines.points)))
        moved, told, largest = _moved(made, drawn, lines, slopes, some, shifts)
        stencils.append(
            _stencil(
                made.outputs(moved).reshape(len(some), len(shifts), -1),
                results[lines.points[some]],
                drawn.upstream[lines.points[some]],
                np.asarray(steps),
            )
        )
        claimed += told
        reference += largest
    joined = (np.concatenate(part, axis=-1) for part in zip(*stencils))
    judged = judge(
        Stencil(*joined), steps, np.array(claimed),
        reference=np.array(reference), straight=lines.places >= 0,
        single=single,
    )  # fmt: skip
    return Compared(drawn, lines, *judged, np.array(claimed), single)


def _stencil(values: Any, middle: Any, upstream: Any, steps: Any) -> Stencil:
    """Weighted values along lines.

    Args:
        values: float64 `[Q, 2 K, M]`, a step further and a step back in turns.
        middle: float64 `[Q, M]`.
        upstream: float64 `[Q, M]`.
        steps: float64 `[K]`.
    """
    with np.errstate(all="ignore"):
        weighted = (values * upstream[:, None]).transpose(1, 0, 2)
        above, below = weighted[0::2], weighted[1::2]
        middle = middle * upstream
        sizes = steps[:, None, None]
        right, left = (above - middle) / sizes, (middle - below) / sizes
        return Stencil(
            middle.sum(-1),
            above.sum(-1),
            below.sum(-1),
            np.minimum(right, left).sum(-1),
            np.maximum(right, left).sum(-1),
            np.abs(middle).sum(-1),
        )


def _moved(
    made: Evaluation, drawn: Points, lines: Lines, slopes: Any, some: Any,
    shifts: Any,
) -> tuple[Any, list[float], list[float]]:  # fmt: skip
    """Points along some lines, and what is claimed of these."""
    moved = drawn.vectors[lines.points[some]].repeat(len(shifts), 0)
    claimed, reference = [], []
    for row, q in enumerate(some):
        part, direction = lines.direction(q, made)
        rows = slice(row * len(shifts), (row + 1) * len(shifts))
        moved[rows, part] += shifts[:, None] * direction
        own = slopes[lines.points[q]]
        claimed.append(float(own[part] @ direction))
        # What each number adds, of which errors are a share.
        inner = np.abs(own[made.slices[lines.inputs[q]]]).max(initial=0.0)
        reference.append(float(inner * lines.width[q]))
    return moved, claimed, reference
