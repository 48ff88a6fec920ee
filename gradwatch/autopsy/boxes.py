"""Autopsies of black boxes: each is opened, replayed and written down.

By a run itself when its fit ends, with its own model, which is left as it is
and may train again at once; and by another process later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradwatch.autopsy.copies import handles
from gradwatch.autopsy.diagnosis import explain
from gradwatch.autopsy.limit import Limit, TimeUp
from gradwatch.autopsy.trace import trace
from gradwatch.blackbox import BlackBox, Composite, load
from gradwatch.capture.contents import matched
from gradwatch.errors import GradWatchError, expected
from gradwatch.reports import Autopsy
from gradwatch.strict_json import dumps

__all__ = ["examine", "examine_all", "examine_within"]

_log = logging.getLogger("gradwatch")
_LONG = 300  # characters of what has failed


def examine_all(
    run: Path, build: Callable[[], Any]
) -> Iterator[tuple[Path, Autopsy]]:
    """Yields the folder and the autopsy of each bad step of a run.

    Args:
        run: a run directory.
        build: returns the run's model, compiled and built, with any weights.

    Raises:
        GradWatchError: there is no black box, or see `examine`.
    """
    folders = sorted(run.glob("blackbox/step-*"), key=_step)
    if not folders:
        raise GradWatchError(
            expected(
                "run_dir",
                "a run directory with `blackbox/step-<n>`",
                str(run),
                "Only a step that was not finite leaves one; see `blackbox=`.",
            )
        )
    for folder in folders:
        yield folder, examine(folder, build())


def examine(folder: Path, model: Any) -> Autopsy:
    """Replays the step of a black box; writes `autopsy.json`, `autopsy.md`.

    Args:
        folder: of the black box.
        model: a compiled `keras.Model`, built by the code of the run; it gets
            the weights and state of the black box.

    Raises:
        GradWatchError: the box is damaged or has no batch, or the model has
            other variables.
        OSError: it cannot be read, or the report not be written.
    """
    box = load(folder)
    batch = _batch(box)
    if not model.built:
        model._symbolic_build(data_batch=batch)
    box.restore(model)
    limit = Limit()
    traced = trace(model, batch, {}, limit)
    (*_, found) = explain(traced, _jit(box), limit)
    found = _told(box, found)
    _write(folder, found)
    return found


def examine_within(
    folders: Sequence[Path], model: Any, seconds: float
) -> Iterator[Autopsy]:
    """Replays steps with the model that made them, which stays as it is.

    What the model itself is needed for is done on this thread, the rest on
    another one, from copies of its variables. Never raises an `Exception`.

    Args:
        folders: of black boxes; those without a batch are passed over.
        model: the live `keras.Model`.
        seconds: for all of them.

    Yields:
        An autopsy each, whose files are written.
    """
    limit = Limit(seconds)
    for folder in folders:
        try:
            found = _examined(folder, model, limit)
        except TimeUp:
            run = folder.parent.parent
            found = _unfinished(
                f"it was not over after {seconds:g} s; `gradwatch autopsy "
                f"{run} --model MODULE:NAME` goes on."
            )
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            found = _unfinished(f"it failed ({why[:_LONG]}).")
        if found is None:
            continue
        found = replace(found, step=_step(folder))
        try:
            _write(folder, found)
        except OSError as error:
            _log.warning("An autopsy could not be written: %r", error)
        yield found


def _examined(folder: Path, model: Any, limit: Limit) -> Autopsy | None:
    limit.check()
    box = load(folder)
    if not _has_batch(box):
        return None
    arrays = {group: [*kept.values()] for group, kept in box.arrays.items()}
    values = {
        id(handle): array
        for array, variable in matched(model, arrays)
        for handle in handles(variable)
        if array is not None
    }
    traced = trace(model, _batch(box), values, limit)
    del arrays, values
    box = replace(box, batch=None, arrays={"readings": _readings(box)})
    answers: list[Autopsy] = []

    def ask() -> None:
        for answer in explain(traced, _jit(box), limit):
            answers.append(answer)

    try:
        limit.run(ask)
    except TimeUp:
        if not answers:
            raise
    return _told(box, answers[-1])


def _jit(box: BlackBox) -> bool:
    return bool(box.manifest["mode"]["jit_compile"])


def _told(box: BlackBox, found: Autopsy) -> Autopsy:
    """Says what an autopsy was made of."""
    note, after = "", box.manifest["state"].get("after")
    left = f"the weights that are left are those after step {after}"
    if after is not None and found.verdict == "optimizer":
        found = _unfinished(f"{left}, and they are not finite.")
        note = found.note
    elif after is not None and found.verdict == "not reproducible":
        found = _unfinished(f"{left}, with which this one is finite.")
        note = found.note
    elif after is not None:
        note = f"Replayed with the weights after step {after}."
    if _is_shared(box) and not note:
        note = f"Of the batch, the share of replica {_replica(box)}."
    count = _reading(box).get(("optimizer_step", ""), -1)
    return replace(
        found,
        step=box.manifest["step"],
        optimizer_step=int(count),
        note=note,
    )


def _unfinished(why: str) -> Autopsy:
    return Autopsy("unfinished", note=why)


def _write(folder: Path, found: Autopsy) -> None:
    for name, text in (
        ("autopsy.json", dumps(found.to_dict()) + "\n"),
        ("autopsy.md", found.to_markdown()),
    ):
        part = folder / f".{name}.tmp"
        part.write_text(text)
        part.replace(folder / name)


def _has_batch(box: BlackBox) -> bool:
    kept = box.arrays.get("batch", {})
    return box.batch is not None and not any(a is None for a in kept.values())


def _batch(box: BlackBox) -> Any:
    """The batch, or the share of it that was not finite, as tensors."""
    if not _has_batch(box):
        what, got = "the batch of the step", "; ".join(box.manifest["notes"])
        do = "Call `gradwatch.autopsy.diagnose` with a batch of yours."
        raise GradWatchError(expected("blackbox", what, got or "none", do))
    shares = box.batch if _is_shared(box) else [box.batch]
    replica = _replica(box)
    share = shares[replica] if replica < len(shares) else None
    if share is not None:
        return _tensors(share)
    what = f"the share of the batch of replica {replica}"
    do = "`notes` of the manifest says why it is not there."
    raise GradWatchError(expected("blackbox", what, "others", do))


def _is_shared(box: BlackBox) -> bool:
    return "replicas" in box.manifest["batch"]


def _replica(box: BlackBox) -> int:
    """The first one whose share of the batch was not finite."""
    bad = [
        int(subject)
        for (signal, subject), value in _reading(box).items()
        if signal == "replica_nonfinite" and value
    ]
    return min(bad, default=0)


def _reading(box: BlackBox) -> dict[tuple[str, str], float]:
    """What the step said of itself, by signal and subject."""
    kept = _readings(box)
    steps, values = kept.get("steps"), kept.get("values")
    if steps is None or values is None:
        return {}
    rows = values[steps == box.manifest["step"]]
    slots = [(signal, subject) for signal, subject in box.manifest["slots"]]
    return dict(zip(slots, rows[0].tolist())) if len(rows) else {}


def _readings(box: BlackBox) -> Mapping[str, Any]:
    return box.arrays.get("readings", {})


def _tensors(part: Any) -> Any:
    """A batch as the train step gets it."""
    if part is None:
        return None
    if isinstance(part, Composite):
        if part.kind == "RaggedTensor":
            values, *splits = part.parts
            return tf.RaggedTensor.from_nested_row_splits(values, splits)
        return tf.SparseTensor(*part.parts)
    if isinstance(part, Mapping):
        return {key: _tensors(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(map(_tensors, part))
    return tf.convert_to_tensor(part)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
