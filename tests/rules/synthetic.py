"""Made-up runs: columns by name, cut into Blocks anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradwatch.interfaces import Rule
from gradwatch.records import Anatomy, Block, Finding, Schema
from gradwatch.signals import Slot

__all__ = ["judged"]


def judged(
    rule: Rule,
    columns: Mapping[Slot, Any],
    xrays: Sequence[int] = (),
    anatomy: Anatomy | None = None,
    cuts: Sequence[int] = (),
) -> list[Finding]:
    """What a new rule says about a run.

    Args:
        rule: new.
        columns: Slot -> a value for each step, or one for all of them.
        xrays: steps that are X-rays; elsewhere, their slots are NaN.
        anatomy: of the model.
        cuts: where one Block ends and the next begins.
    """
    steps = max(np.size(values) for values in columns.values())
    schema = Schema(tuple(columns))
    wide = [np.broadcast_to(values, steps) for values in columns.values()]
    values = np.stack(wide, 1).astype(np.float32)
    seen = np.isin(np.arange(steps), xrays)
    values[np.ix_(~seen, schema.xray)] = np.nan
    rule.begin(anatomy or Anatomy(), Schema())
    rule.begin(anatomy or Anatomy(), schema)
    found: list[Finding] = list(rule.check(Block.empty(len(columns))))
    for part in np.split(np.arange(steps), sorted(set(cuts))):
        times = part.astype(float)
        found += rule.check(Block(part, times, values[part], seen[part]))
    return found
