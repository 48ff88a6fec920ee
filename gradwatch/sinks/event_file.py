"""An event file: a chain of TFRecords, appended and read.

The framing is tensorboard's (`summary/writer/record_writer.py`), written here
because of what was measured with tensorboard 2.21:

- its checksum takes 6 ms of Python, holding the interpreter's lock, for one
  Block of 64 x 200 values;
- at a full disk the thread of its `EventFileWriter` dies with a traceback, and
  each new try leaves a thread and an empty file behind;
- its writer and its loaders import TensorFlow where that is installed.

Standard library and google-crc32c only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import google_crc32c

__all__ = ["EventFile", "event_files", "read_records"]

_LENGTH = struct.Struct("<Q")
_SUM = struct.Struct("<I")


def event_files(directory: str | Path) -> list[Path]:
    """Returns the event files of a run directory, oldest first."""
    return sorted(Path(directory).glob("events.out.tfevents.*"))


class EventFile:
    """An append-only event file; a failed append leaves it as it was.

    Args:
        directory: the run directory.

    Attributes:
        size: bytes of this file.
        others: bytes of the directory's other event files.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._path: Path | None = None
        self._file: FileIO | None = None
        self.others = 0
        self.size = 0

    def measure(self) -> None:
        """Counts what earlier fits of this run have written."""
        files = event_files(self._directory)
        sizes = [f.stat().st_size for f in files if f != self._path]
        self.others = sum(sizes)

    def append(self, data: bytes, limit: int) -> bool:
        """Appends a record, or returns False if `size` would pass `limit`."""
        record = _frame(data)
        if self.size + len(record) > limit:
            return False
        if self._file is None:
            self._file = self._open()
        try:
            # Unbuffered: no byte of a failed record can turn up later.
            rest = memoryview(record)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._undo()
            raise
        self.size += len(record)
        return True

    def close(self) -> None:
        """Closes the file; the next record opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _open(self) -> FileIO:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._path is None:
            number = len(event_files(self._directory))
            self._path = self._directory / (
                f"events.out.tfevents.{int(time.time()):010d}"
                f".{socket.gethostname()}.{os.getpid()}.{number:04d}"
            )
        return self._path.open("ab", buffering=0)

    def _undo(self) -> None:
        """Cuts a half-written record off; else the next file is a new one."""
        assert self._file is not None
        try:
            self._file.truncate(self.size)
        except OSError:
            self._path, self.size = None, 0
            with contextlib.suppress(OSError):
                self.close()
            self.measure()


def _frame(data: bytes) -> bytes:
    """Returns `data` as a TFRecord: length, its sum, data, its sum."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def read_records(path: Path, about: bytes) -> Iterator[bytes]:
    """Yields the records of an event file up to the first that is damaged.

    Args:
        path: the file; it may be cut off anywhere.
        about: bytes that a record must hold to be yielded.
    """
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            if _checksum(head[:8]) != head[8:]:
                return
            (length,) = _LENGTH.unpack(head[:8])
            data, checksum = file.read(length), file.read(4)
            if len(checksum) < 4:
                return
            if about in data:
                if _checksum(data) != checksum:
                    return
                yield data


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C of a TFRecord."""
    crc = google_crc32c.value(data)
    return _SUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
