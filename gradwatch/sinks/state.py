"""`state.json`: the present of a run, for everyone outside the process.

And `anatomy.json`, the frozen facts about its model; what they were under an
earlier Schema stays as `anatomy-<hash>.json`. All are replaced atomically, so a
reader sees a whole file at any moment, also after the trainer was killed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradwatch.errors import GradWatchError, expected
from gradwatch.records import Anatomy, Block, Record, Run, Schema
from gradwatch.runstate import ENDED, RunState, Snapshot
from gradwatch.shape import decode
from gradwatch.strict_json import dumps, read_anatomy

__all__ = [
    "ANATOMY",
    "FILE",
    "LIMIT",
    "StateSink",
    "add_autopsies",
    "anatomy_of",
    "check",
    "earlier_anatomy",
    "find_run",
    "known_anatomy",
    "read_state",
]

ANATOMY = "anatomy.json"
"""Name of the model's facts in the run directory."""

FILE = "state.json"
"""Its name in the run directory."""

LIMIT = 2**20
"""Bytes that it never exceeds."""

_PAUSE = 1.0  # seconds between two replacements


class StateSink:
    """Writes the snapshot of a `RunState` at most once a second.

    A Beat, Finding or Epoch asks for a new snapshot; if the last one is less
    than a second old, the first record after that second writes it. `close`
    always writes.

    Args:
        path: the run directory; made if it does not exist.
        state: folded by the pump, before its records come here.
    """

    name = "state"

    def __init__(self, path: str | Path, state: RunState) -> None:
        self._path = Path(path) / FILE
        self._state = state
        self._tried = -_PAUSE
        self._asked = False
        self._schema = Schema()

    def open(self, run: Run, schema: Schema) -> None:
        """Writes the anatomy, and a snapshot already before the first step."""
        self._asked = True
        self._write_if_due()
        if schema.slots:
            file = self._path.with_name(ANATOMY)
            if self._schema.slots and schema != self._schema:
                file.replace(earlier_anatomy(self._path.parent, self._schema))
            self._schema = schema
            _replace(file, dumps(self._state.anatomy).encode())
            earlier_anatomy(self._path.parent, schema).unlink(missing_ok=True)

    def write(self, record: Record) -> None:
        """Writes the snapshot if one is asked for and the second is over."""
        self._asked |= not isinstance(record, Block)
        self._write_if_due()

    def close(self) -> None:
        """Writes the last snapshot."""
        self._write()

    def _write_if_due(self) -> None:
        if self._asked and time.monotonic() - self._tried >= _PAUSE:
            self._write()

    def _write(self) -> None:
        self._tried = time.monotonic()
        _replace(self._path, _fit(self._state.snapshot()))
        self._asked = False


def known_anatomy(run_dir: Path) -> Anatomy:
    """Returns the newest facts about a run's model, an empty one if none."""
    file = run_dir / ANATOMY
    return anatomy_of(file) if file.exists() else Anatomy()


def anatomy_of(file: Path) -> Anatomy:
    """Returns what an `anatomy.json` says."""
    return read_anatomy(json.loads(file.read_bytes()))


def earlier_anatomy(run_dir: Path, schema: Schema) -> Path:
    """Returns where the anatomy of a Schema lies that is not the newest one."""
    return run_dir / ANATOMY.replace(".", f"-{schema.hash}.")


def check(run_dir: str | Path) -> None:
    """Raises GradWatchError where there is no run directory."""
    if not (Path(run_dir) / FILE).is_file():
        what = f"a run directory, with the file {FILE}"
        do = "Name a folder below `logdir`; `gradwatch status` lists them."
        raise GradWatchError(expected("run_dir", what, str(run_dir), do))


def find_run(run: str | Path, logdirs: Iterable[Path]) -> Path:
    """Returns the directory of a run.

    Args:
        run: its directory, its id, or what ids of its name begin with.
        logdirs: folders to look for it in, at any depth.

    Raises:
        GradWatchError: there is none, or more than one.
    """
    if (Path(run) / FILE).is_file():
        return Path(run)
    named = re.compile(re.escape(str(run)) + r"(-\d{8}-\d{6}-[0-9a-f]+)?")
    files = [file for root in logdirs for file in root.rglob(FILE)]
    folders = sorted(
        {f.parent for f in files if named.fullmatch(f.parent.name)}
    )
    exact = [folder for folder in folders if folder.name == str(run)]
    found = exact or folders
    if len(found) == 1:
        return found[0]
    what = f"a run directory, with the file {FILE}, or the id of a run"
    do = "Name a folder below `logdir`; `gradwatch status` lists them."
    if found:
        do = f"Name one of {', '.join(map(str, found))}."
    raise GradWatchError(expected("run", what, str(run), do))


def read_state(run_dir: str | Path) -> Snapshot:
    """Returns what the state.json of a run says.

    Raises:
        GradWatchError: it is no run directory, or what lies there cannot be
            used.
        OSError: it cannot be read.
    """
    check(run_dir)
    try:
        return decode((Path(run_dir) / FILE).read_bytes())
    except ValueError as error:
        what = f"a {FILE} that this version of gradwatch can read"
        do = "Use the gradwatch that wrote it."
        if str(error) != "version":
            do = "It is damaged, or gradwatch has not written it."
        raise GradWatchError(
            expected("run_dir", what, str(run_dir), do)
        ) from None


def add_autopsies(
    run_dir: Path, autopsies: Sequence[Mapping[str, Any]]
) -> bool:
    """Adds the headlines of autopsies to the state.json of a run.

    Args:
        run_dir: the run directory.
        autopsies: `step`, `verdict` and `headline` of each.

    Returns:
        Whether it did: not while a trainer may still write that file, and not
        if it cannot be read.

    Raises:
        OSError: it cannot be written.
    """
    path = run_dir / FILE
    try:
        snapshot = json.loads(path.read_bytes())
        ended = snapshot["phase"] in ENDED
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if ended:
        _replace(path, _fit({**snapshot, "autopsies": list(autopsies)}))
    return ended


def _replace(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Not synced: what must survive is a killed process, not a machine.
        temporary.write_bytes(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _fit(snapshot: dict[str, Any]) -> bytes:
    """Returns the snapshot as JSON of at most `LIMIT` bytes.

    What does not fit goes in this order: history, newest values from the end,
    findings from the oldest.
    """
    text = dumps(snapshot).encode()
    if len(text) > LIMIT:
        snapshot["history"] = {"steps": [], "series": []}
        text = dumps(snapshot).encode()
    while len(text) > LIMIT and snapshot["values"]:
        values = snapshot["values"]
        snapshot["values"] = values[: len(values) // 2]
        text = dumps(snapshot).encode()
    while len(text) > LIMIT and snapshot["findings"]:
        findings = snapshot["findings"]
        snapshot["findings"] = findings[len(findings) // 2 + 1 :]
        text = dumps(snapshot).encode()
    return text
