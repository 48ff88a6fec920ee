"""What a run directory holds for a report, in bounded memory.

However long the run was: readings are folded while they are read. Files that
are not there (of a run that has just begun) leave their part empty. Must not
import keras, tensorflow or the service.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gradwatch.errors import GradWatchError
from gradwatch.health import Health, health
from gradwatch.records import Anatomy, Autopsy, Block, Epoch, Finding, Schema
from gradwatch.report.columns import Columns
from gradwatch.runstate import Snapshot
from gradwatch.sinks.findings import read_findings
from gradwatch.sinks.readings import read_run
from gradwatch.sinks.state import known_anatomy, read_state

__all__ = ["Contents", "Readings", "Tell", "read_contents"]

Tell = Callable[[float], None]
"""Takes the share of the readings that has been read, 0 to 1."""

_EVERYDAY = (
    "loss",
    "loss_component",
    "gradient_norm",
    "applied_gradient_norm",
    "learning_rate",
    "optimizer_learning_rate",
    "step_time",
    "variable_gradient_norm",
)
_XRAY = (
    "variable_weight_norm",
    "variable_update_norm",
    "layer_silent_ratio",
    "layer_bound_ratio",
)
_EPOCHS = 400  # kept; evenly over the run where there are more


class Readings(NamedTuple):
    """The history of a run.

    Attributes:
        everyday: of signals that every step measures.
        xrays: of signals that X-rays measure.
        epochs: their ends, at most 400.
        first: the first step.
    """

    everyday: Columns
    xrays: Columns
    epochs: list[Epoch]
    first: int


class Contents(NamedTuple):
    """What a run directory says.

    Attributes:
        path: its path.
        snapshot: what `state.json` holds.
        health: of the run, now.
        anatomy: facts about the model.
        findings: in the order in which they were made.
        autopsies: by step.
        readings: see `Readings`.
    """

    path: Path
    snapshot: Snapshot
    health: Health
    anatomy: Anatomy
    findings: list[Finding]
    autopsies: list[Autopsy]
    readings: Readings


def read_contents(run_dir: str | Path, tell: Tell | None = None) -> Contents:
    """Reads a run directory, finished or not.

    Args:
        run_dir: the run directory.
        tell: called now and then while readings are read.

    Raises:
        GradWatchError: it is no run directory, or a later gradwatch wrote it.
        OSError: it cannot be read.
    """
    path = Path(run_dir)
    snapshot = read_state(path)
    anatomy = known_anatomy(path)
    return Contents(
        path,
        snapshot,
        health(snapshot, time.time()),
        anatomy,
        read_findings(path),
        _autopsies(path),
        _readings(path, snapshot["steps"], tell or (lambda share: None)),
    )


def _autopsies(path: Path) -> list[Autopsy]:
    found = [
        Autopsy.from_json(json.loads(file.read_bytes()))
        for file in path.glob("blackbox/step-*/autopsy.json")
    ]
    return sorted(found, key=lambda autopsy: autopsy.step)


def _readings(path: Path, steps: int, tell: Tell) -> Readings:
    """Folds the readings of the event files, Block by Block."""
    found: Readings | None = None
    chosen: dict[Schema, tuple[list[int], list[int]]] = {}
    epochs: list[Epoch] = []
    try:
        for schema, record in read_run(path):
            if isinstance(record, Epoch):
                epochs.append(record)
            elif isinstance(record, Block) and len(record):
                if found is None:
                    first = min(schema.first_step, int(record.steps[0]))
                    found = Readings(Columns(first), Columns(first), [], first)
                if schema not in chosen:
                    chosen[schema] = _of(schema, _EVERYDAY), _of(schema, _XRAY)
                _add(found, schema, record, *chosen[schema])
                tell(min(int(record.steps[-1]) / max(steps, 1), 1.0))
    except ValueError as error:
        raise GradWatchError(f"{path}: {error}") from None
    stride = -(-len(epochs) // _EPOCHS) or 1
    kept = sorted(epochs, key=lambda epoch: epoch.step)[::-stride][::-1]
    found = found or Readings(Columns(0), Columns(0), [], 0)
    return found._replace(epochs=kept)


def _of(schema: Schema, signals: tuple[str, ...]) -> list[int]:
    columns = schema.columns
    return [i for signal in signals for i in columns(signal).values()]


def _add(
    found: Readings,
    schema: Schema,
    block: Block,
    everyday: list[int],
    rare: list[int],
) -> None:
    slots = schema.slots
    values = block.values[:, everyday]
    found.everyday.add(block.steps, [slots[i] for i in everyday], values)
    if rare and block.xray.any():
        values = block.values[block.xray][:, rare]
        steps = block.steps[block.xray]
        found.xrays.add(steps, [slots[i] for i in rare], values)
