"""What is kept of a snapshot comes back bit by bit, from memory and disk."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from gradwatch.capture.storage import InMemory, OnDisk, Storage

Make = Callable[[Path], Storage]
KINDS: list[Make] = [lambda _: InMemory(), OnDisk]


@pytest.mark.parametrize("make", KINDS, ids=["memory", "disk"])
def test_what_was_written_is_read(make: Make, tmp_path: Path) -> None:
    """Any dtype and shape; written again, and in another shape."""
    storage = make(tmp_path / "new")
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**16, 12, np.uint16)  # NaN and Inf among them
    arrays = {
        "matrix": rng.normal(size=(300, 200)).astype(np.float32),
        "count": np.asarray(2**40, np.int64),
        "flag": np.asarray(True),
        "none": np.empty((0, 3), np.float32),
        "half": bits.view(np.float16),
        "bfloat16": bits.view(ml_dtypes.bfloat16).reshape(3, 4),
        "turned": rng.normal(size=(4, 5)).T,
    }
    for _ in range(2):
        for key, array in arrays.items():
            storage.write(key, array)
        assert "matrix" in storage
        assert "other" not in storage
        for key, array in arrays.items():
            read = storage.read(key)
            assert (read.shape, read.dtype) == (array.shape, array.dtype)
            assert read.tobytes() == array.tobytes()
        arrays["matrix"] = -arrays["matrix"]
        arrays["half"] = rng.normal(size=(40, 50))


@pytest.mark.parametrize("make", KINDS, ids=["memory", "disk"])
def test_it_is_a_copy(make: Make, tmp_path: Path) -> None:
    """What is done to the array later does not reach it."""
    storage = make(tmp_path)
    array = np.ones(3)
    storage.write("a", array)
    array[0] = np.nan
    np.testing.assert_array_equal(storage.read("a"), np.ones(3))


def test_a_file_of_the_same_arrays_does_not_grow(tmp_path: Path) -> None:
    """It is as large as they are, and has no name."""
    storage = OnDisk(tmp_path)
    for value in range(5):
        for key in "ab":
            storage.write(key, np.full(1000, value))
    assert storage.size == 2 * 8000
    assert list(tmp_path.iterdir()) == []


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """Of writing, where a mapped file would kill the process; of no more."""
    storage = OnDisk(tmp_path)
    storage.write("small", np.ones(10))
    with _files_of_at_most(4096):
        with pytest.raises(OSError, match="too large"):
            storage.write("large", np.ones(1000))
        np.testing.assert_array_equal(storage.read("small"), np.ones(10))
        del storage  # closes its file
        gc.collect()
