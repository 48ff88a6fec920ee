"""Judging again: a recorded run goes through rules, as it went live.

With the headlines of the autopsies that lie in the run directory. So a rule can
be tested on old runs. It sees what was recorded: every step of short runs, less
of long ones (see `sinks/thinning.py`), and each Schema's newest Anatomy. Beats
are not recorded: rules about liveness stay silent. Needs no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradwatch.errors import GradWatchError, expected
from gradwatch.interfaces import Rule
from gradwatch.records import (
    Anatomy,
    Autopsy,
    Block,
    Epoch,
    Finding,
    Record,
    Schema,
    explained,
)
from gradwatch.rules.folding import Folding
from gradwatch.sinks.readings import read_run
from gradwatch.sinks.state import ANATOMY, anatomy_of, earlier_anatomy

__all__ = ["Opened", "Part", "judge", "read_recording", "replay"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A rule's `begin`: what the records from here on are about."""

    anatomy: Anatomy
    schema: Schema


class Part(NamedTuple):
    """What a run directory holds of a Schema, for rules.

    Attributes:
        opened: the Schema, and the newest facts about the model under it.
        records: its Blocks and Epochs by their steps.
    """

    opened: Opened
    records: list[Block | Epoch]


def replay(run_dir: str | Path, rules: Sequence[Rule]) -> list[Finding]:
    """Returns what rules find in a recorded run.

    Args:
        run_dir: the run directory, finished or not.
        rules: new instances; they keep what they have seen.

    Returns:
        The findings in the order in which they would have come.

    Raises:
        GradWatchError: there is no recorded run in that folder.
    """
    findings = judge(rules, _received(read_recording(Path(run_dir))))
    for file in Path(run_dir).glob("blackbox/step-*/autopsy.json"):
        autopsy = Autopsy.from_json(json.loads(file.read_text()))
        findings = explained(findings, autopsy)
    return findings


def judge(
    rules: Sequence[Rule], received: Iterable[Opened | Record]
) -> list[Finding]:
    """Returns what new rules say about what they get, item by item."""
    told: list[Finding] = []
    folding = Folding()
    for item in received:
        found: list[Finding] = []
        for rule in rules:
            if isinstance(item, Opened):
                rule.begin(item.anatomy, item.schema)
            else:
                found += rule.check(item)
        told += folding(found)
    return told


def _received(parts: Iterable[Part]) -> Iterator[Opened | Record]:
    """What a rule got while the run was live."""
    for opened, records in parts:
        yield opened
        if slots := opened.schema.slots:
            yield Block.empty(len(slots))
        yield from records


def read_recording(run_dir: Path) -> list[Part]:
    """Reads a run directory; see `replay`.

    Returns:
        A part for each Schema of the run, in order; the first one, before
        anything was traced, has no slots.
    """
    try:
        newest = anatomy_of(run_dir / ANATOMY)
    except OSError:
        raise GradWatchError(
            expected(
                "run_dir",
                f"a run directory, with the file {ANATOMY}",
                run_dir,
                "Name a folder below `logdir` whose run has begun to train.",
            )
        ) from None
    parts: dict[Schema, list[Any]] = {}
    for schema, record in read_run(run_dir):
        part = parts.setdefault(schema, [])
        if record is not None:
            part.append(record)
    return [
        Part(Opened(_of(run_dir, schema, newest), schema), list(_ordered(part)))
        for schema, part in parts.items()
    ]


def _of(run_dir: Path, schema: Schema, newest: Anatomy) -> Anatomy:
    """Returns the facts about the model under a Schema."""
    file = earlier_anatomy(run_dir, schema)
    return anatomy_of(file) if file.exists() else newest


def _ordered(records: Sequence[Block | Epoch]) -> Iterator[Block | Epoch]:
    """Yields records by their steps: thinned rows come late in the file."""
    blocks = [r for r in records if isinstance(r, Block)]
    epochs = [r for r in records if isinstance(r, Epoch)]
    rows = _joined(blocks) if blocks else None
    for epoch in sorted(epochs, key=lambda e: e.step):
        if rows is not None:
            before = rows.steps < epoch.step
            if before.any():
                yield rows.rows(before)
                rows = rows.rows(~before)
        yield epoch
    if rows is not None and len(rows):
        yield rows


def _joined(blocks: Sequence[Block]) -> Block:
    """Returns all rows of some Blocks in one, ascending."""
    steps, times, values, xray = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("steps", "times", "values", "xray")
    )
    order = np.argsort(steps, kind="stable")
    taken = order[xray[order]]  # rows that have histograms
    places = np.cumsum(xray) - 1
    histograms = {
        slot: np.concatenate([b.histograms[slot] for b in blocks])[
            places[taken]
        ]
        for slot in blocks[0].histograms
    }
    rows = (steps[order], times[order], values[order], xray[order])
    return Block(*rows, histograms)
