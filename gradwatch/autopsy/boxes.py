"""Autopsies of black boxes: each is opened, replayed and written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradwatch.autopsy.diagnosis import diagnose
from gradwatch.autopsy.report import Autopsy
from gradwatch.blackbox import BlackBox, load
from gradwatch.errors import GradWatchError, expected
from gradwatch.strict_json import dumps

__all__ = ["examine", "examine_all"]


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
            the weights, state and mode of the black box.

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
    model.jit_compile = bool(box.manifest["mode"]["jit_compile"])
    found = replace(diagnose(model, batch), step=box.manifest["step"])
    (folder / "autopsy.json").write_text(dumps(found.to_dict()) + "\n")
    (folder / "autopsy.md").write_text(found.to_markdown())
    return found


def _batch(box: BlackBox) -> Any:
    batch = box.batch
    if isinstance(batch, list):  # of several replicas
        what, got = "a batch of one replica", f"{len(batch)} of them"
    elif batch is None or not all(
        array is not None for array in box.arrays["batch"].values()
    ):
        what, got = "the batch of the step", "; ".join(box.manifest["notes"])
    else:
        return batch
    do = "Call `gradwatch.autopsy.diagnose` with a batch of yours."
    raise GradWatchError(expected("blackbox", what, got or "none", do))


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
