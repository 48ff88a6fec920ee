"""What a black box holds of a step, read from model and device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradwatch.capture.box import Box, Kept
from gradwatch.capture.contents import contents
from gradwatch.capture.readout import Readout

__all__ = ["Evidence", "evidence"]

_READINGS = 64


class Evidence(NamedTuple):
    """What `blackbox.write` takes.

    Attributes:
        manifest: plain data.
        arrays: yields group, name and array, the most important first; each is
            read when it is asked for.
    """

    manifest: dict[str, Any]
    arrays: Iterator[tuple[str, str, Any]]


def evidence(
    model: Any, readout: Readout, box: Box | None, step: int | None
) -> Evidence:
    """Returns what there is of a step; on the training thread only.

    Args:
        model: the `keras.Model`.
        readout: has its readings.
        box: has its batch, if it is to be written.
        step: a bad step; `None`: the next one, whose batch is not known.
    """
    count = readout.ring.progress().seen
    kept = Kept(None, (), ())
    if box is not None and step is not None:
        kept = box.take(step)
    wanted = count if step is None else step
    before, held = (True, 0) if step is None else _since(readout, step)
    manifest = {
        "step": wanted,
        "state": {"before": wanted} if before else {"after": count - 1},
        "held_steps": held,
        "mode": {
            "jit_compile": bool(model.jit_compile),
            "run_eagerly": bool(model.run_eagerly),
            "steps_per_execution": model.steps_per_execution,
        },
        "batch": kept.nest,
        "notes": list(kept.notes),
        "slots": [*readout.everyday],
    }
    return Evidence(manifest, _arrays(model, readout, kept, wanted))


def _since(readout: Readout, step: int) -> tuple[bool, int]:
    """What has happened from `step` on.

    Returns:
        Whether nothing has changed the model, and how many updates of finite
        steps were held for that.
    """
    at = readout.ring.progress()
    if at.seen - step > readout.ring.capacity:
        return False, 0
    rows, steps = readout.ring.rows(step, at.seen), np.arange(step, at.seen)
    signals = [slot.signal for slot in readout.everyday]
    bad, dropped = (
        rows[:, signals.index(signal)] > 0
        for signal in ("nonfinite", "update_dropped")
    )
    held = (at.held >= 0) & (steps > at.held) & ~bad
    if at.stopped:
        held &= steps < at.latched
    blocked = held | ((at.latched >= 0) & (steps > at.latched))
    return bool((dropped & (bad | blocked)).all()), int(held.sum())


def _arrays(
    model: Any, readout: Readout, kept: Kept, step: int
) -> Iterator[tuple[str, str, Any]]:
    for i, array in enumerate(kept.arrays):
        yield "batch", str(i), array
    yield from _readings(readout, step)
    for group, name, variable in contents(model):
        yield group, name, variable.numpy()


def _readings(readout: Readout, step: int) -> Iterator[tuple[str, str, Any]]:
    """The rows of up to 64 steps before, and that of the step itself."""
    ring = readout.ring
    if not ring.capacity:
        return
    count = ring.progress().seen
    oldest = max(readout.schema.first_step, count - ring.capacity)
    first, last = max(oldest, step - _READINGS), min(count, step + 1)
    if first < last:
        yield "readings", "steps", np.arange(first, last)
        yield "readings", "values", ring.rows(first, last)
