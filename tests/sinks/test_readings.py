"""Packed readings come back, also from cut files and after disk trouble."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow as stub

from gradwatch.records import Block, Run, Schema
from gradwatch.signals import HISTOGRAM_EDGES, Slot
from gradwatch.sinks.event_file import EventFile
from gradwatch.sinks.readings import decode, encode, read_blocks
from gradwatch.sinks.tensorboard import TensorBoardSink

RUN = Run("run", "run", 1000.0, "host", {}, {})
LOSS = Schema((Slot("loss"),))
VERSION_1 = Path(__file__).parents[1] / "data" / "readings_v1.bin"


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def block(first: int, rows: int, columns: int) -> Block:
    """Returns a Block of distinct values; every third row is an X-ray."""
    steps = np.arange(first, first + rows)
    values = np.arange(rows * columns, dtype=np.float32)
    xray = steps % 3 == 0
    counts = steps[xray][:, None] * 1000 + np.arange(99)
    return Block(
        steps,
        1000.0 + steps / 10,
        values.reshape(rows, columns) + np.float32(first),
        xray,
        {Slot("gradient_histogram", p): counts + len(p) for p in ("a", "b/ü")},
    )


def same(a: Block, b: Block) -> bool:
    """Whether two Blocks are equal bit by bit, dtypes included."""
    arrays: list[tuple[np.ndarray, np.ndarray]] = [
        (a.steps, b.steps),
        (a.times, b.times),
        (a.values, b.values),
        (a.xray, b.xray),
        *zip(a.histograms.values(), b.histograms.values()),
    ]
    return list(a.histograms) == list(b.histograms) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in arrays
    )


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Draws Blocks of any bits: NaN payloads, infinities, no rows."""
    rows = draw(st.integers(0, 40))
    columns = draw(st.integers(0, 9))
    bits = draw(hnp.arrays(np.uint32, (rows, columns)))
    xray = draw(hnp.arrays(np.bool_, rows))
    slots = draw(st.lists(st.builds(Slot, st.text(), st.text()), unique=True))
    shape = int(xray.sum()), draw(st.integers(0, 5))
    return Block(
        draw(hnp.arrays(np.int64, rows)),
        draw(hnp.arrays(np.float64, rows)),
        bits.view(np.float32),
        xray,
        {slot: draw(hnp.arrays(np.int64, shape)) for slot in slots},
    )


@given(blocks())
def test_decode_returns_what_encode_packed(given: Block) -> None:
    """Every bit of every array survives, and so does the Schema's hash."""
    schema, got = decode(encode("0123456789abcdef", given))
    assert schema == "0123456789abcdef"
    assert same(got, given)


@given(blocks(), st.data())
def test_rows_take_their_histograms_along(
    given: Block, data: st.DataObject
) -> None:
    """Whichever rows are packed, each X-ray row keeps its own counts."""
    which = data.draw(hnp.arrays(np.bool_, len(given)))
    _, part = decode(encode("0123456789abcdef", given.rows(which)))
    xrays = np.flatnonzero(given.xray).tolist()
    kept = [n for n, row in enumerate(xrays) if which[row]]
    assert part.steps.tolist() == given.steps[which].tolist()
    for slot, counts in given.histograms.items():
        assert part.histograms[slot].tolist() == counts[kept].tolist()


def test_histograms_are_small() -> None:
    """Counts of a normal distribution take a tenth of their bytes at most."""
    values = np.random.default_rng(0).normal(size=(50, 10_000))
    bins = np.searchsorted(HISTOGRAM_EDGES, values, side="right")
    one = Block(
        np.arange(1),
        np.zeros(1),
        np.zeros((1, 0), np.float32),
        np.ones(1, np.bool_),
        {
            Slot("weight_histogram", f"layer_{i}/kernel"): np.bincount(
                row, minlength=99
            )[None]
            for i, row in enumerate(bins)
        },
    )
    assert len(encode("0123456789abcdef", one)) < one.nbytes / 10


def test_version_1_is_read() -> None:
    """Bytes that the first version wrote give the same Block, no histograms."""
    schema, got = decode(VERSION_1.read_bytes())
    assert schema == "0123456789abcdef"
    assert same(got, replace(block(0, 8, 2), histograms={}))


def test_later_versions_are_refused() -> None:
    """Readings of a later format raise, and the error says what to do."""
    packed = encode("0123456789abcdef", block(0, 2, 3))
    with pytest.raises(ValueError, match="Read this run with the gradwatch"):
        decode(b"\x63" + packed[1:])


@given(st.binary(max_size=1000))
def test_checksum_is_tensorboards(data: bytes) -> None:
    """A framed record is byte for byte what tensorboard's writer makes."""
    from gradwatch.sinks.event_file import _frame

    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", stub.masked_crc32c(b)) for b in (length, data)]
    assert _frame(data) == length + sums[0] + data + sums[1]


def test_tensorboards_own_loader_reads_the_file(tmp_path: Path) -> None:
    """The record reader of tensorboard finds exactly the events written."""
    events = [event_pb2.Event(step=step) for step in range(3)]
    file = EventFile(tmp_path)
    for event in events:
        assert file.append(event.SerializeToString(), 10_000)
    file.close()
    (path,) = tmp_path.iterdir()
    reader = stub.PyRecordReader_New(str(path))
    got = []
    for _ in events:
        reader.GetNext()
        got.append(event_pb2.Event.FromString(reader.record()))
    assert got == events


def test_blocks_come_back_with_their_schema(tmp_path: Path) -> None:
    """Each Block is read with the Schema under which it was written."""
    first = Schema((Slot("loss"), Slot("gradient_norm")))
    second = Schema((Slot("loss"), Slot("variable_weight_norm", "a/k")), 8)
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, first)
    sink.write(block(0, 8, 2))
    sink.open(RUN, second)
    sink.write(block(8, 8, 2))
    sink.close()
    sink.open(RUN, second)
    sink.write(block(16, 8, 2))
    sink.close()
    got = list(read_blocks(tmp_path))
    assert [schema for schema, _ in got] == [first, second, second]
    for (_, found), start in zip(got, (0, 8, 16), strict=True):
        assert same(found, block(start, 8, 2))


def test_a_cut_file_yields_the_earlier_blocks(tmp_path: Path) -> None:
    """Wherever the last record is cut off, all Blocks before it are read."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, LOSS)
    sink.write(block(0, 8, 1))
    (path,) = tmp_path.iterdir()
    sink.write(block(8, 8, 1))
    sink.close()
    whole = path.read_bytes()
    start, length = 0, 0
    for offset in _records(whole):
        if b"gradwatch/readings" in whole[offset[0] : offset[1]]:
            start, length = offset
    for cut in range(start, length):
        path.write_bytes(whole[:cut])
        (got,) = read_blocks(tmp_path)
        assert same(got[1], block(0, 8, 1)), cut
    path.write_bytes(whole[:length])
    assert len(list(read_blocks(tmp_path))) == 2


def test_a_damaged_record_ends_its_file_only(tmp_path: Path) -> None:
    """A flipped bit ends the reading of that file, not of the next one."""
    for number in range(2):
        sink = TensorBoardSink(tmp_path)
        sink.open(RUN, LOSS)
        sink.write(block(8 * number, 8, 1))
        sink.close()
    first, _ = sorted(tmp_path.iterdir())
    data = bytearray(first.read_bytes())
    data[data.index(b"gradwatch/readings") + 60] ^= 1
    first.write_bytes(data)
    (got,) = read_blocks(tmp_path)
    assert same(got[1], block(8, 8, 1))


def test_reading_loads_no_tensorflow(tmp_path: Path) -> None:
    """Neither writing nor reading a run imports TensorFlow."""
    code = (
        "import sys\n"
        "import gradwatch.sinks.readings as r\n"
        "assert 'tensorboard' not in sys.modules\n"
        "from gradwatch.sinks.tensorboard import TensorBoardSink\n"
        "from gradwatch.records import Run, Schema\n"
        "s = TensorBoardSink(sys.argv[1])\n"
        "s.open(Run('r', 'r', 1.0, 'h', {}, {}), Schema())\n"
        "s.close()\n"
        "list(r.read_blocks(sys.argv[1]))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_full_disk_loses_only_what_did_not_fit(tmp_path: Path) -> None:
    """Errors are raised, nothing is torn, and with room it goes on."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, LOSS)
    sink.write(block(0, 10, 1))
    with full_disk(_size(tmp_path) + 100):
        for first in range(10, 60, 10):
            with pytest.raises(OSError, match="too large"):
                sink.write(block(first, 10, 1))
        sink.close()
    sink.open(RUN, LOSS)
    sink.write(block(60, 10, 1))
    sink.close()
    assert [b.steps[0] for _, b in read_blocks(tmp_path)] == [0, 60]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_full_from_the_start_is_survived(tmp_path: Path) -> None:
    """What a file begins with is written when there is room at last."""
    sink = TensorBoardSink(tmp_path)
    with full_disk(10):
        with pytest.raises(OSError, match="too large"):
            sink.open(RUN, LOSS)
        with pytest.raises(OSError, match="too large"):
            sink.write(block(0, 10, 1))
        sink.close()
    sink.write(block(10, 10, 1))
    sink.close()
    ((schema, got),) = read_blocks(tmp_path)
    assert schema == LOSS
    assert got.steps[0] == 10


def test_a_lost_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    """If the file itself fails, the next record begins a file that counts."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, LOSS)
    sink.write(block(0, 10, 1))
    descriptor = sink._file._file
    assert descriptor is not None
    os.close(descriptor.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        sink.write(block(10, 10, 1))
    sink.write(block(20, 10, 1))
    sink.close()
    assert [b.steps[0] for _, b in read_blocks(tmp_path)] == [0, 20]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_leaves_all_it_wrote(tmp_path: Path) -> None:
    """After kill -9 every Block is there whose `write` had returned."""
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from gradwatch.records import Block, Run, Schema\n"
        "from gradwatch.signals import Slot\n"
        "from gradwatch.sinks.tensorboard import TensorBoardSink\n"
        "sink = TensorBoardSink(sys.argv[1])\n"
        "sink.open(Run('r', 'r', 1.0, 'h', {}, {}), Schema((Slot('loss'),)))\n"
        "for step in range(10**6):\n"
        "    sink.write(Block(np.array([step]), np.array([1.0 + step]),\n"
        "        np.ones((1, 1), np.float32), np.zeros(1, bool)))\n"
        "    print(step, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(200)]
        process.kill()
        said += [int(line) for line in process.stdout if line.endswith(b"\n")]
    steps = [int(b.steps[0]) for _, b in read_blocks(tmp_path)]
    assert steps[: len(said)] == said
    assert len(steps) <= len(said) + 1


def _records(data: bytes) -> list[tuple[int, int]]:
    """Returns begin and end of each record, in bytes."""
    found, start = [], 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        found.append((start, start + length + 16))
        start += length + 16
    return found


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.iterdir())
