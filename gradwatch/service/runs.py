"""Finds run directories and reads the `state.json` in them.

A directory is the input of other people's processes: nothing outside the roots
is opened, no symbolic link is followed, sizes and numbers are limited, and what
cannot be read is skipped and counted. Must not import keras, tensorflow or the
trainer's side.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gradwatch.exports import CHIEF
from gradwatch.runstate import ENDED, Snapshot
from gradwatch.shape import decode

__all__ = [
    "MAX_BYTES",
    "REASONS",
    "RETENTION",
    "STATE",
    "Runs",
    "Seen",
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

RETENTION = 900.0
"""Seconds for which a run that has ended is still exported."""

_LOST_RETENTION = 7 * 86400.0  # seconds after which nobody waits for a run
_MAX_FOLDERS = 20_000  # looked into in one root, so that a scan ends


class Seen(NamedTuple):
    """A worker of a run, as it was last seen.

    Attributes:
        snapshot: what it says.
        place: its folder, below the root it was found under; `""` = the root.
        since: when its last sign of life was first seen, Unix seconds of this
            machine.
        watched: whether an older sign of life of it was seen before.
    """

    snapshot: Snapshot
    place: str = ""
    since: float = 0.0
    watched: bool = False

    def now(self, clock: float) -> float:
        """Returns the present as the run's own clock has it, Unix seconds.

        Clocks of machines differ. Once a sign of life was seen to come, the
        time since then is what counts.

        Args:
            clock: the present here, Unix seconds.
        """
        heartbeat = float(self.snapshot["heartbeat"])
        own = heartbeat + max(clock - self.since, 0.0)
        return own if self.watched else max(clock, own)

    def is_current(self, clock: float, retention: float) -> bool:
        """Returns whether somebody may still want to hear of it.

        Args:
            clock: the present here, Unix seconds.
            retention: seconds for which a run that has ended does.
        """
        now = self.now(clock)
        if self.snapshot["phase"] in ENDED:
            return float(self.snapshot["end"]) >= now - retention
        return float(self.snapshot["heartbeat"]) >= now - _LOST_RETENTION


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


def read_snapshot(root: Path, path: Path) -> Snapshot:
    """Reads a state.json without leaving its root.

    Args:
        root: a folder; the only part of the path that may be a link.
        path: of the file, below `root`.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it cannot be used; the text is one of `REASONS`.
    """
    return decode(_content(root, path.relative_to(root).parts))


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


class Runs:
    """The runs below some folders, read again at every `look`.

    Thread-safe. Files that have not changed are not read again.

    Args:
        roots: folders; they need not exist yet.
        limit: number of snapshots, the newest first.
        clock: returns Unix time in seconds.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        limit: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.roots = tuple(roots)
        self.clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[tuple[int, ...], Snapshot | str]] = {}
        self._seen: dict[tuple[str, str], Seen] = {}
        self._errors = Counter(dict.fromkeys(REASONS, 0))

    def look(self) -> list[Seen]:
        """Returns the runs that can be read, the newest first."""
        with self._lock:
            found = {f.path: f for root in self.roots for f in self._find(root)}
            seen: dict[tuple[str, str], Seen] = {}
            for file in sorted(
                found.values(), key=lambda f: f.mark, reverse=True
            ):
                self._add(seen, file)
            self._read = {p: r for p, r in self._read.items() if p in found}
            self._seen = seen
            return list(seen.values())

    def errors(self) -> Mapping[str, int]:
        """Returns reason -> run directories not read, summed over all looks."""
        with self._lock:
            return dict(self._errors)

    def room(self) -> Mapping[str, int]:
        """Returns root -> bytes that can still be written there."""
        found = {}
        for root in self.roots:
            with contextlib.suppress(OSError):
                disk = os.statvfs(root)
                found[str(root)] = disk.f_bavail * disk.f_frsize
        return found

    def _add(self, seen: dict[tuple[str, str], Seen], file: _Found) -> None:
        if len(seen) == self._limit:
            # A long history is normal; a live run that is left out is not.
            young = file.mark[0] / 1e9 > self.clock() - RETENTION
            self._errors["limit"] += young
            return
        snapshot = self._snapshot(file)
        if isinstance(snapshot, str):
            self._errors[snapshot] += 1
        elif snapshot:
            key = snapshot["run"]["id"], snapshot.get("rank", CHIEF)
            self._errors["duplicate"] += key in seen
            place = file.path.parent.relative_to(file.root)
            seen.setdefault(key, self._aged(key, snapshot, str(place)))

    def _aged(
        self, key: tuple[str, str], snapshot: Snapshot, place: str
    ) -> Seen:
        """Returns a snapshot with the time since when it says nothing new."""
        before = self._seen.get(key)
        if before is None:
            return Seen(snapshot, place, self.clock())
        if before.snapshot["heartbeat"] == snapshot["heartbeat"]:
            return before._replace(snapshot=snapshot, place=place)
        return Seen(snapshot, place, self.clock(), watched=True)

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
