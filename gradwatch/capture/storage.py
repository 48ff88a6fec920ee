"""Storage: where the arrays of a snapshot lie, in host memory or on the disk.

Both are overwritten by the next snapshot that they are used for.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["InMemory", "OnDisk", "Storage"]


class Storage(Protocol):
    """Arrays by key, each of any shape and dtype."""

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is one."""

    def read(self, key: Hashable) -> NDArray[Any]:
        """Returns one; not to be changed."""

    def write(self, key: Hashable, array: NDArray[Any]) -> None:
        """Keeps a copy of one.

        Raises:
            MemoryError: there is no more memory.
            OSError: the disk is full, say.
        """


class _Place(NamedTuple):
    """Where in a file an array begins, and what it is."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class InMemory:
    """Arrays in memory, which is used again where they fit."""

    def __init__(self) -> None:
        self._arrays: dict[Hashable, NDArray[Any]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._arrays

    def read(self, key: Hashable) -> NDArray[Any]:
        """See `Storage`."""
        return self._arrays[key]

    def write(self, key: Hashable, array: NDArray[Any]) -> None:
        """See `Storage`."""
        there = self._arrays.get(key)
        if there is not None and _alike(there, array):
            np.copyto(there, array)
        else:
            self._arrays[key] = np.array(array)


class OnDisk:
    """Arrays in a file that has no name, and so goes with the process.

    Written and not mapped: a full disk is an error then, where it would kill a
    process that has mapped the file.

    Args:
        folder: the file system on which it lies; made if it is not there.

    Attributes:
        size: of the file, in bytes.

    Raises:
        OSError: there can be no file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._file = file
        weakref.finalize(self, file.close)
        self._places: dict[Hashable, _Place] = {}
        self.size = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places

    def read(self, key: Hashable) -> NDArray[Any]:
        """See `Storage`."""
        place = self._places[key]
        array = np.empty(place.shape, place.dtype)
        self._file.seek(place.start)
        _all(self._file.readinto, array)
        return array

    def write(self, key: Hashable, array: NDArray[Any]) -> None:
        """See `Storage`."""
        place = self._places.get(key)
        if place is None or not _alike(place, array):
            place = _Place(self.size, array.shape, array.dtype)
            self._places[key] = place
            self.size += array.nbytes
        self._file.seek(place.start)
        _all(self._file.write, array)


def _alike(left: NDArray[Any] | _Place, right: NDArray[Any]) -> bool:
    return (left.shape, left.dtype) == (right.shape, right.dtype)


def _all(move: Callable[[memoryview], int], array: NDArray[Any]) -> None:
    """Moves all bytes of an array; the system moves 2 GB at once, or less."""
    left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while left:
        moved = move(left)
        if not moved:
            raise EOFError("A snapshot's file has been cut.")
        left = left[moved:]
