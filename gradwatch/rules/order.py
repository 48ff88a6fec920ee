"""Order: do batches differ from each other by more than chance? numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.rules.rows import Columns, Row

__all__ = ["SHUFFLE", "between_batches"]

SHUFFLE = (
    "Shuffle the examples before they are cut into batches: `shuffle=True`, or "
    "`Dataset.shuffle` with a buffer as large as the data."
)
"""Advice for data in order."""

_LEAST = 4


def between_batches(columns: Columns, rows: Sequence[Row]) -> float:
    """Returns how much more targets differ between batches than by chance.

    That is the ratio F of an analysis of variance (Fisher 1925): the variance
    of the batches' means, times the examples of one, over the variance within
    batches. Shuffled batches have 1, and 10 by a chance of 0.00001 (four of 32
    examples); those of data sorted by class as many as they have examples.

    Args:
        columns: of the rows.
        rows: X-rays of different batches.

    Returns:
        The largest F of all targets, of numbers or of class ids; NaN if there
        are fewer than four batches.
    """
    names = ("batch_mean", "batch_example_std")
    fields = [f for f in columns.subjects(names[0]) if f.startswith("targets")]
    return max((_ratio(columns, rows, f) for f in fields), default=math.nan)


def _ratio(columns: Columns, rows: Sequence[Row], field: str) -> float:
    get = columns.get
    found = np.array(
        [
            (
                get(row, "examples"),
                get(row, "batch_mean", field),
                get(row, "batch_example_std", field),
            )
            for row in rows
        ],
        float,
    ).reshape(-1, 3)
    found = found[np.isfinite(found).all(1) & (found[:, 0] > 1)]
    if len(found) < _LEAST:
        return math.nan
    n, means, stds = found.T
    within = float((stds**2 * n / (n - 1)).mean())
    between = float(np.median(n) * means.var(ddof=1))
    if between <= 1e-12 * float((means**2).mean()):
        return 0.0
    return between / within if within > 0 else math.inf
