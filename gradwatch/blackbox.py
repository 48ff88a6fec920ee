"""The black box: all that is needed to run one step again, in a folder.

`<run directory>/blackbox/step-<n>/` holds one `.npz` a group of arrays, loaded
without pickle (`batch`, `readings`, `model`, `optimizer`, `metrics`), and
`manifest.json`, which names them. The folder appears when it is whole. At most
512 MB of arrays; the manifest says which were left out. numpy and the standard
library only, but for `BlackBox.restore`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradwatch.errors import GradWatchError, expected
from gradwatch.facts import BOX_BYTES
from gradwatch.strict_json import dumps

__all__ = ["VERSION", "BlackBox", "Composite", "load", "write"]

VERSION = 1
"""Of the format. `load` refuses a higher one."""

_MANIFEST = "manifest.json"


class Composite(NamedTuple):
    """A tensor made of several, as TensorFlow flattens it.

    Attributes:
        kind: name of its class, `RaggedTensor` or `SparseTensor`.
        parts: its arrays.
    """

    kind: str
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class BlackBox:
    """What `load` has read.

    Attributes:
        manifest: what `manifest.json` says: `step`, `state` (the step before
            which, or after which, model and optimizer were read), `mode`,
            `notes`, `finding`, `versions` and more.
        batch: what the train step was called with: tuples, lists, dicts and
            `Composite`s of arrays `[examples, ...]`; under `MirroredStrategy` a
            list with one of them a replica; `None` without a batch.
        arrays: group -> name -> array, `None` where it was left out, in order.
            `readings` are `steps` int64 `[B]`, `values` float32 `[B, K]`, whose
            columns the manifest names (`slots`).
    """

    manifest: Mapping[str, Any]
    batch: Any
    arrays: Mapping[str, Mapping[str, Any]]

    def restore(self, model: Any) -> None:
        """Gives weights, state and optimizer to a model built like the first.

        Args:
            model: a compiled `keras.Model`, built by the same code.

        Raises:
            GradWatchError: it has other variables.
        """
        from gradwatch.capture import restore

        restore(model, {k: [*v.values()] for k, v in self.arrays.items()})


def write(
    path: Path,
    arrays: Iterable[tuple[str, str, Any]],
    manifest: Mapping[str, Any],
) -> None:
    """Writes a black box.

    Args:
        path: the folder to be made.
        arrays: group, name and array, the most important first: what does not
            fit into 512 MB any more is left out. `None` is left out as well.
        manifest: what else there is to say, plain data.

    Raises:
        OSError: it cannot be written; then nothing of it is left behind.
    """
    unfinished = path.with_name(f".{path.name}")
    try:
        unfinished.mkdir(parents=True)
        entries = _write_arrays(unfinished, arrays)
        said = {"version": VERSION, **manifest, "arrays": entries}
        (unfinished / _MANIFEST).write_text(dumps(said) + "\n")
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def load(path: str | Path) -> BlackBox:
    """Reads a black box.

    Args:
        path: its folder.

    Raises:
        GradWatchError: it was damaged, or a newer version has written it.
        OSError: there is none.
    """
    folder = Path(path)
    manifest = json.loads((folder / _MANIFEST).read_text())
    if manifest["version"] > VERSION:
        what = f"a black box of version {VERSION} or older"
        do = "Update gradwatch."
        raise GradWatchError(expected("path", what, manifest["version"], do))
    arrays: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        for entry in manifest["arrays"]:
            group = entry["group"]
            if group not in files and "sha256" in entry:
                file = np.load(folder / f"{group}.npz", allow_pickle=False)
                files[group] = stack.enter_context(file)
            array = _read(files.get(group), entry)
            arrays.setdefault(group, {})[entry["name"]] = array
    leaves = [*arrays.get("batch", {}).values()]
    batch = _rebuilt(manifest.get("batch"), leaves)
    return BlackBox(manifest, batch, arrays)


def _write_arrays(
    folder: Path, arrays: Iterable[tuple[str, str, Any]]
) -> list[dict[str, Any]]:
    """Writes one file a group; returns what the manifest says of each array."""
    entries: list[dict[str, Any]] = []
    left = BOX_BYTES
    with contextlib.ExitStack() as stack:
        files: dict[str, zipfile.ZipFile] = {}
        for group, name, array in arrays:
            entry: dict[str, Any] = {"group": group, "name": name}
            entry["key"] = str(len(entries))
            entries.append(entry)
            if array is None:
                continue
            array = np.asarray(array)
            stored = _storable(array)
            entry |= {"shape": array.shape, "dtype": _dtype(array)}
            entry["bytes"] = stored.nbytes
            if stored.nbytes > left:
                continue
            left -= stored.nbytes
            entry["sha256"] = _checksum(stored)
            if group not in files:
                file = zipfile.ZipFile(folder / f"{group}.npz", "w")
                files[group] = stack.enter_context(file)
            key = f"{entry['key']}.npy"
            with files[group].open(key, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, stored, allow_pickle=False)
    return entries


def _read(file: Any, entry: Mapping[str, Any]) -> Any:
    if "sha256" not in entry:
        return None
    stored = file[entry["key"]]
    if _checksum(stored) != entry["sha256"]:
        what = f"`{entry['name']}` as it was written"
        do = "The file was damaged; take another copy."
        raise GradWatchError(expected("path", what, "other bytes", do))
    if entry["dtype"] == "string":
        texts = [text[:-1] for text in stored.reshape(-1).tolist()]
        return np.array(texts, object).reshape(stored.shape)
    if str(stored.dtype) == entry["dtype"]:
        return stored
    import ml_dtypes

    return stored.view(getattr(ml_dtypes, entry["dtype"]))


def _storable(array: Any) -> Any:
    """The same bytes in a dtype that numpy loads without pickle."""
    if array.dtype.hasobject:
        # numpy would take zeros at the end of a text for none.
        texts = [bytes(text) + b"." for text in array.reshape(-1)]
        return np.array(texts, np.bytes_).reshape(array.shape)
    if array.dtype.isbuiltin == 2:  # bfloat16
        return array.view(f"u{array.dtype.itemsize}")
    return array


def _dtype(array: Any) -> str:
    return "string" if array.dtype.hasobject else str(array.dtype)


def _checksum(array: Any) -> str:
    flat = np.ascontiguousarray(array).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()


def _rebuilt(nest: Any, leaves: Sequence[Any]) -> Any:
    """The nest that its description stands for."""
    if nest is None:
        return None
    ((kind, parts),) = nest.items()
    if kind == "leaf":
        return leaves[parts]
    if kind == "dict":
        return {key: _rebuilt(part, leaves) for key, part in parts.items()}
    built = [_rebuilt(part, leaves) for part in parts]
    if kind in ("list", "replicas"):
        return built
    return tuple(built) if kind == "tuple" else Composite(kind, tuple(built))
