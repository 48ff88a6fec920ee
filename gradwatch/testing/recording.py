"""Recordings: what a rule would get from the run of a scenario, in a file.

A recording is a zip file without pickle: `index.json` lists what was received,
in order, and each Block is a member as `sinks.readings` packs it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.replay import Opened
from gradwatch.sinks.readings import decode, encode
from gradwatch.strict_json import (
    dumps,
    read_anatomy,
    read_epoch,
    read_schema,
)

__all__ = ["Recorder", "Recording", "load", "save"]

_INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Recording:
    """The run of a scenario.

    Attributes:
        name: of the scenario, or of the twin of one.
        seed: of the run.
        quality: see `Program`; NaN if predictions were not finite.
        loss: mean loss of the last epoch, as Keras said it; NaN if none ended.
        seconds: time that the training took.
        error: message of the exception that ended `fit`, `""` if none did.
        received: what a rule gets, in order.
    """

    name: str
    seed: int
    quality: float
    loss: float
    seconds: float
    error: str
    received: tuple[Opened | Record, ...]

    @property
    def steps(self) -> int:
        """Steps that were measured."""
        return sum(len(r) for r in self.received if isinstance(r, Block))


@dataclass
class Recorder:
    """A rule that judges nothing and keeps all it gets."""

    received: list[Opened | Record] = field(default_factory=list)
    name = "recorder"
    severity: Severity = "info"
    needs = ()
    meaning = "Keeps what rules get."
    advice = ""

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self.received.append(Opened(anatomy, schema))

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        self.received.append(record)
        yield from ()


def save(recording: Recording, path: Path) -> None:
    """Writes a recording to a new file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        items: list[Any] = []
        schema = ""
        for i, item in enumerate(recording.received):
            if isinstance(item, Opened):
                schema = item.schema.hash
            if isinstance(item, Block):
                items.append(["Block", f"{i}.block"])
                file.writestr(f"{i}.block", encode(schema, item))
            else:
                items.append([type(item).__name__, json.loads(dumps(item))])
        facts = {
            name: getattr(recording, name)
            for name in ("name", "seed", "quality", "loss", "seconds", "error")
        }
        file.writestr(_INDEX, dumps({**facts, "received": items}))


def load(path: str | Path) -> Recording:
    """Reads a recording that `save` wrote."""
    with zipfile.ZipFile(path) as file:
        index = json.loads(file.read(_INDEX))
        received = tuple(
            decode(file.read(what))[1] if kind == "Block" else _READ[kind](what)
            for kind, what in index["received"]
        )
    for name in ("quality", "loss"):
        index[name] = float(index[name])
    return Recording(**{**index, "received": received})


def _opened(data: Any) -> Opened:
    return Opened(read_anatomy(data["anatomy"]), read_schema(data["schema"]))


_READ = {
    "Opened": _opened,
    "Epoch": read_epoch,
    "Beat": lambda data: Beat(**data),
}
