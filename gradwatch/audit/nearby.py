"""What rounding alone can change: points whose numbers are the next there are.

A function that feels the step of its inputs from one number to the next is not
to blame for it, so checks allow what such steps are seen to change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gradwatch.audit.running import Answer, Point, Running
from gradwatch.audit.subject import Subject
from gradwatch.provenance.paths import operations

__all__ = ["LEAST", "draws", "epsilon", "next_to", "noise"]

LEAST = 0.02
"""A gradient is compared with so much of the largest, at least: one that is 0
by symmetry has rounding errors and nothing else."""


def draws(run: Running) -> bool:
    """Whether a graph draws random numbers."""
    kinds = (str(operation.type) for operation in operations(run.graph))
    return any("Random" in kind or "Multinomial" in kind for kind in kinds)


def epsilon(dtype: str) -> float:
    """From 1 to the next number of a dtype."""
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 2.0**-23)


def next_to(subject: Subject, point: Point, k: int, dtype: str) -> list[Any]:
    """Returns a point whose numbers are the next that a dtype has.

    Args:
        subject: whose.
        point: where.
        k: number of the point: each has other signs.
        dtype: of the numbers.
    """
    random = subject.generator(14, k)
    step = epsilon(dtype)
    return [
        value
        if one.domain.whole
        else value * (1 + step * random.choice([-1.0, 1.0], value.shape))
        for one, value in zip(subject.inputs, point)
    ]


def noise(
    subject: Subject, run: Running, point: Point, here: Answer,
    steps: Iterable[int], dtype: str,
) -> list[float]:  # fmt: skip
    """Returns how much each part of an answer changes by such steps, at most.

    Args:
        subject: whose.
        run: what answers.
        point: where.
        here: its answer there.
        steps: numbers of the points, see `next_to`.
        dtype: of their numbers.
    """
    found = [0.0] * len(here.parts)
    for k in steps:
        moved = run(next_to(subject, point, k, dtype)).parts
        for i, (a, b) in enumerate(zip(moved, here.parts)):
            if a.shape == b.shape and a.size:
                off = np.nan_to_num(np.abs(a - b))
                found[i] = max(found[i], float(off.max()))
    return found
