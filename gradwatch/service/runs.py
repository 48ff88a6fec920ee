"""Finds run directories and reads the `state.json` in them.

A directory is the input of other people's processes: nothing outside the roots
is opened, no symbolic link is followed, sizes and numbers are limited, and what
cannot be read is skipped and counted. Must not import keras, tensorflow or the
trainer's side.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gradwatch.runstate import VERSION, Snapshot
from gradwatch.service.shape import is_snapshot

__all__ = [
    "MAX_BYTES",
    "REASONS",
    "STATE",
    "Runs",
    "has_ended",
    "health",
    "read_snapshot",
]

STATE = "state.json"
"""A folder that holds a file of this name is a run directory."""

MAX_BYTES = (1 << 20) + (1 << 16)
"""Of a state.json: the 1 MB that writers promise and a little slack."""

REASONS = (
    "missing",
    "unreadable",
    "unsafe",
    "size",
    "json",
    "version",
    "shape",
    "duplicate",
    "limit",
)
"""Why a run directory is not read: no such root, the system refuses, a link or
not a plain file, too large, not strict JSON, written by a newer gradwatch, not
what gradwatch writes, the run was found elsewhere, too many of them."""

_ENDED = ("finished", "failed", "interrupted")
_MAX_FOLDERS = 20_000  # looked into in one root, so that a scan ends
_SLACK = 30.0  # seconds; disks and networks may delay a state.json


class _Found(NamedTuple):
    """A state.json that exists.

    Attributes:
        path: where, below `root`.
        root: the root it was found under, resolved.
        mark: changes whenever the file does; first the modification time [ns].
    """

    path: Path
    root: Path
    mark: tuple[int, ...]


def has_ended(snapshot: Snapshot) -> bool:
    """Returns whether the trainer said that the run is over."""
    return snapshot["phase"] in _ENDED


def health(snapshot: Snapshot, now: float) -> Literal["ok", "lost"]:
    """Returns `lost` if a run broke its promise of a next sign of life.

    Args:
        snapshot: the run's present.
        now: Unix time in seconds.
    """
    promised = max(float(snapshot["next_beat"]), float(snapshot["heartbeat"]))
    late = now > promised + _SLACK
    return "lost" if late and not has_ended(snapshot) else "ok"


def read_snapshot(root: Path, path: Path) -> dict[str, Any]:
    """Reads a state.json without leaving its root.

    Args:
        root: a folder; the only part of the path that may be a link.
        path: of the file, below `root`.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it cannot be used; the text is one of `REASONS`.
    """
    return _snapshot(_content(root, path.relative_to(root).parts))


def _content(root: Path, parts: Sequence[str]) -> bytes:
    try:
        descriptor = _open_below(root, parts)
    except FileNotFoundError:
        raise
    except OSError as error:
        link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        raise ValueError("unsafe" if link else "unreadable") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("unsafe")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError("unreadable") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise ValueError("size")
    return content


def _open_below(root: Path, parts: Sequence[str]) -> int:
    """Opens part by part: a folder may turn into a link after it was listed."""
    # Not to wait for the writer of a pipe that is called state.json.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for i, part in enumerate(parts, 1):
        folder = descriptor
        inner = os.O_DIRECTORY if i < len(parts) else 0
        try:
            descriptor = os.open(part, flags | inner, dir_fd=folder)
        finally:
            os.close(folder)
    return descriptor


def _snapshot(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content, parse_constant=_reject)
    # Deep nesting ends in RecursionError, not in ValueError.
    except (ValueError, RecursionError) as error:
        raise ValueError("json") from error
    if not isinstance(data, dict):
        raise ValueError("shape")
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError("version")
    if not is_snapshot(data):
        raise ValueError("shape")
    return data


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not strict JSON")


class Runs:
    """The runs below some folders, read again at every `scan`.

    Thread-safe. Files that have not changed are not read again.

    Args:
        roots: folders; they need not exist yet.
        limit: number of runs, the newest first.
        retention: seconds for which `current` keeps a run that has ended.
        clock: returns Unix time in seconds.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        limit: int = 100,
        retention: float = 900.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.roots = tuple(roots)
        self.clock = clock
        self._limit = limit
        self._retention = retention
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[tuple[int, ...], Snapshot | str]] = {}
        self._errors = Counter(dict.fromkeys(REASONS, 0))

    def scan(self) -> list[Snapshot]:
        """Returns the runs that can be read, the newest first."""
        with self._lock:
            found = {f.path: f for root in self.roots for f in self._find(root)}
            runs: dict[str, Snapshot] = {}
            for file in sorted(
                found.values(), key=lambda f: f.mark, reverse=True
            ):
                self._add(runs, file)
            self._read = {p: r for p, r in self._read.items() if p in found}
            return list(runs.values())

    def current(self) -> list[Snapshot]:
        """Returns `scan` without the runs that ended too long ago."""
        oldest = self.clock() - self._retention
        return [
            s
            for s in self.scan()
            if not (has_ended(s) and float(s["end"]) < oldest)
        ]

    def errors(self) -> Mapping[str, int]:
        """Returns reason -> run directories not read, summed over all scans."""
        with self._lock:
            return dict(self._errors)

    def health(self, snapshot: Snapshot) -> Literal["ok", "lost"]:
        """Returns the health of one of the runs now."""
        return health(snapshot, self.clock())

    def _add(self, runs: dict[str, Snapshot], file: _Found) -> None:
        if len(runs) == self._limit:
            # A long history is normal; a live run that is left out is not.
            young = file.mark[0] / 1e9 > self.clock() - self._retention
            self._errors["limit"] += young
            return
        snapshot = self._snapshot(file)
        if isinstance(snapshot, str):
            self._errors[snapshot] += 1
        elif snapshot:
            identity = snapshot["run"]["id"]
            self._errors["duplicate"] += identity in runs
            runs.setdefault(identity, snapshot)

    def _snapshot(self, file: _Found) -> Snapshot | str | None:
        """Returns what a file says, why it says nothing, or `None`: gone."""
        mark, known = self._read.get(file.path, ((), ""))
        if mark == file.mark:
            return known
        try:
            known = read_snapshot(file.root, file.path)
        except FileNotFoundError:
            return None
        except ValueError as reason:
            known = str(reason)
        self._read[file.path] = (file.mark, known)
        return known

    def _find(self, root: Path) -> Iterator[_Found]:
        """Yields the run directories below a root; there are none in them."""
        root = root.resolve()
        if not root.is_dir():
            self._errors["missing"] += 1
            return
        walk = os.walk(root, onerror=self._count_refusal)
        for visited, (folder, folders, files) in enumerate(walk):
            if visited == _MAX_FOLDERS:
                self._errors["limit"] += 1
                return
            if STATE not in files:
                continue
            folders.clear()
            path = Path(folder, STATE)
            try:
                s = path.lstat()
            except OSError:
                continue
            mark = (s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino)
            yield _Found(path, root, mark)

    def _count_refusal(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self._errors["unreadable"] += 1
