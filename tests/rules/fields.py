"""Synthetic X-rays of what a loss compares, for tests of rules about data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradwatch.records import Anatomy, Block, Finding, Layer, Schema, Variable
from gradwatch.signals import Slot

STATISTICS = ("min", "max", "mean", "std", "distinct", "example_std")


def statistics(values: Any) -> dict[str, float]:
    """Returns what an X-ray says about the values of a field."""
    rows = np.asarray(values, np.float32)
    found = {
        "batch_min": rows.min(),
        "batch_max": rows.max(),
        "batch_mean": rows.mean(),
        "batch_std": rows.std(),
        "batch_distinct": min(len(np.unique(rows)), 64),
        "batch_example_std": np.sqrt((rows.std(0) ** 2).mean()),
        "batch_integer_ratio": np.mean(rows == np.round(rows)),
    }
    if rows.ndim > 1:
        ones = abs(rows.sum(-1) - 1) < 1e-3
        found["batch_unit_row_ratio"] = ones.mean()
    return {name: float(value) for name, value in found.items()}


def anatomy(
    loss: Any, last: str = "linear", units: int = 1, **facts: Any
) -> Anatomy:
    """Returns the facts of ten inputs, a hidden layer and an output."""
    return Anatomy(
        layers=(
            Layer("m/hidden", "Dense", "relu"),
            Layer("m/output", "Dense", last),
        ),
        variables=(
            Variable("m/hidden/kernel", (10, 8), "float32", True, 0.3),
            Variable("m/output/kernel", (8, units), "float32", True, 0.3),
        ),
        loss=loss,
        **facts,
    )


def xray(
    step: int, fields: Mapping[str, Any], values: Mapping[Slot, float] = {}
) -> dict[Slot, float]:
    """Returns the values of one X-ray row; the step is among them."""
    row = {Slot("step"): float(step), Slot("examples"): 32.0, **values}
    for name, entries in fields.items():
        for signal, value in statistics(entries).items():
            row[Slot(signal, name)] = value
    return row


def judge(
    rule: Any,
    facts: Anatomy,
    rows: Sequence[Mapping[Slot, float]],
    cuts: Sequence[int] = (),
) -> list[Finding]:
    """Returns what a rule finds in X-ray rows, cut into Blocks.

    A component named `part` becomes that of the compiled loss.
    """
    loss = facts.loss
    name = loss.get("name", "part") if isinstance(loss, dict) else str(loss)
    rows = [
        {
            s._replace(subject=s.subject.replace("part", name)): row[s]
            for s in row
        }
        for row in rows
    ]
    names = [slot for slot in rows[0] if slot.signal != "step"]
    table = [[row.get(slot, np.nan) for slot in names] for row in rows]
    values = np.array(table, np.float32)
    steps = np.array([row[Slot("step")] for row in rows], np.int64)
    rule.begin(facts, Schema(tuple(names)))
    found: list[Finding] = []
    for part in np.split(np.arange(len(rows)), sorted(cuts)):
        seen = np.ones(len(part), np.bool_)
        block = Block(steps[part], part.astype(float), values[part], seen)
        found += rule.check(block)
    return found
