"""Packed readings: lossless Blocks inside TensorBoard's event files.

The sink writes one event a Block; its only value has the tag `TAG`, the plugin
name `PLUGIN` and a string tensor with these bytes, little-endian:

- the version of this format, uint8;
- the Schema's hash, 16 ASCII bytes;
- rows B and columns K, two uint32;
- bytes of the histograms' names and bins N of each, two uint32 (version 2);
- a zlib stream of `steps` int64 `[B]`, `times` float64 `[B]`, `values` float32
  `[B, K]`, `xray` uint8 `[B]` and (version 2) the H histograms: their names, a
  JSON list of `[signal, subject]`, and their counts int64 `[H, X, N]`, a row
  for each of the X rows whose `xray` is 1; of each array first the lowest byte
  of all numbers, then the next byte of all numbers, and so on.

Version 1, without histograms, is read as well. The Schema is JSON in an event
of the tag `SCHEMA_TAG`, in front of the first Block that refers to it; an
Epoch is JSON in one of the tag `EPOCH_TAG`.

Needs the standard library and numpy; `read_blocks` also needs tensorboard's
protocol buffers. Never TensorFlow.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradwatch.errors import expected
from gradwatch.records import Block, Epoch, Schema
from gradwatch.signals import Slot
from gradwatch.sinks.event_file import event_files, read_records
from gradwatch.strict_json import read_epoch, read_schema

__all__ = [
    "EPOCH_TAG",
    "PLUGIN",
    "SCHEMA_TAG",
    "TAG",
    "decode",
    "encode",
    "read_blocks",
    "read_run",
]

PLUGIN = "gradwatch"
TAG = "gradwatch/readings"
SCHEMA_TAG = "gradwatch/schema"
EPOCH_TAG = "gradwatch/epoch"

_VERSION = 2
_HEAD = struct.Struct("<B16sII")
_HISTOGRAMS = struct.Struct("<II")


def encode(schema: str, block: Block) -> bytes:
    """Packs a Block.

    Args:
        schema: hash of the Schema that names its columns.
        block: B rows, K columns; its histograms have the same bins.

    Returns:
        The bytes that `decode` reads.
    """
    names = json.dumps(list(block.histograms)).encode()
    counts = np.array(list(block.histograms.values()), np.int64)
    head = _HEAD.pack(_VERSION, schema.encode(), *block.values.shape)
    head += _HISTOGRAMS.pack(len(names), counts.shape[-1])
    body = (
        _planes(block.steps, "<i8"),
        _planes(block.times, "<f8"),
        _planes(block.values, "<f4"),
        _planes(block.xray, "u1"),
        names,
        _planes(counts, "<i8"),
    )
    return head + zlib.compress(b"".join(body), level=1)


def decode(data: bytes) -> tuple[str, Block]:
    """Returns the Schema's hash and the Block that `encode` packed.

    Raises:
        ValueError: if a later version of gradwatch wrote `data`.
    """
    version, schema, rows, columns = _HEAD.unpack_from(data)
    if version > _VERSION:
        raise ValueError(
            expected(
                "version",
                f"readings of version {_VERSION} or before",
                version,
                "Read this run with the gradwatch that wrote it.",
            )
        )
    start, named, bins = _HEAD.size, 0, 0
    if version > 1:
        named, bins = _HISTOGRAMS.unpack_from(data, start)
        start += _HISTOGRAMS.size
    body = memoryview(zlib.decompress(data[start:]))
    sizes = [8 * rows, 8 * rows, 4 * rows * columns, rows, named]
    ends = [*accumulate(sizes, initial=0), len(body)]
    parts = [body[a:b] for a, b in pairwise(ends)]
    steps, times, values, xray, names, counts = parts
    marks = _from_planes(xray, "u1").astype(np.bool_)
    block = Block(
        _from_planes(steps, "<i8").astype(np.int64),
        _from_planes(times, "<f8").astype(np.float64),
        _from_planes(values, "<f4").astype(np.float32).reshape(rows, columns),
        marks,
        _histograms(bytes(names), counts, (int(marks.sum()), bins)),
    )
    return schema.decode(), block


def _histograms(
    names: bytes, counts: memoryview, shape: tuple[int, int]
) -> dict[Slot, NDArray[np.int64]]:
    slots = [Slot(*slot) for slot in json.loads(names or b"[]")]
    numbers = _from_planes(counts, "<i8").astype(np.int64)
    return dict(zip(slots, numbers.reshape(len(slots), *shape), strict=True))


def _planes(array: NDArray[np.generic], dtype: DTypeLike) -> bytes:
    """Bytes of `array` by significance: exponents compress, mantissas don't."""
    flat = np.ascontiguousarray(array, dtype).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()


def _from_planes(data: memoryview, dtype: str) -> NDArray[np.generic]:
    planes = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


def read_blocks(run_dir: str | Path) -> Iterator[tuple[Schema, Block]]:
    """Reads the packed readings of a run, finished or not.

    Blocks come as they were written. No row comes twice, and within a Block
    steps ascend; but rows that thinning had left out and that belong to a
    finding's window are written when the finding comes, as Blocks of their own
    after later steps. A file is read up to its first record that is cut off.

    Args:
        run_dir: the run directory.

    Yields:
        The Schema and the Block, `[B, K]`, whose columns it names.
    """
    for schema, record in read_run(run_dir):
        if isinstance(record, Block):
            yield schema, record


def read_run(
    run_dir: str | Path,
) -> Iterator[tuple[Schema, Block | Epoch | None]]:
    """Reads what the event files hold of a run, as it was written.

    Args:
        run_dir: the run directory.

    Yields:
        The Schema of a record, and the record; `None` where a Schema begins.
    """
    from tensorboard.compat.proto import event_pb2

    schemas: dict[str, Schema] = {}
    schema = Schema()
    for path in event_files(run_dir):
        # The many records of scalars are passed over without a check.
        for record in read_records(path, b"gradwatch/"):
            for value in event_pb2.Event.FromString(record).summary.value:
                if value.tag == SCHEMA_TAG:
                    text = value.tensor.string_val[0]
                    schema = read_schema(json.loads(text))
                    schemas[schema.hash] = schema
                    yield schema, None
                elif value.tag == EPOCH_TAG:
                    text = value.tensor.string_val[0]
                    yield schema, read_epoch(json.loads(text))
                elif value.tag == TAG:
                    name, block = decode(value.tensor.string_val[0])
                    if name in schemas:
                        yield schemas[name], block
