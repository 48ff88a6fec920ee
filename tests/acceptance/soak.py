"""A long run of tiny steps takes no more and no more of the machine.

    python -m tests.acceptance.soak --steps 200000

Watched and plain `fit` train one after the other, each in a fresh process, and
are asked 100 times what they have taken. In the second half nothing may grow:
not the number of threads, not that of open files, not the memory.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.bench.command import command
from tests.bench.figures import Report, table
from tests.bench.process import alone, status
from tests.bench.workloads import compiled, tiny

__all__ = ["growth", "measure_all", "report"]

_FIGURES = ("memory_bytes", "threads", "files", "written_bytes")
_SAMPLES = 100
# Bytes a step: what an array keeps of every step, if only one number. Measured
# over 100,000 steps, plain fit grows by 0.1 bytes a step, and a watched one by
# 2.5, ever more slowly (a history that fills, a heap that settles).
_LEAK = 8
_BUDGET = 256 * 2**20  # of event files, see `sinks/tensorboard.py`
_SMALL_FILES = 2 * 2**20  # `state.json` (at most 1 MB), anatomy, findings


def measure_all(steps: int = 200_000) -> dict[str, Any]:
    """Trains plain and watched; returns samples, and the steps seen."""
    steps -= steps % _SAMPLES
    found = {}
    for arm in ("plain", "watched"):
        print(f"long run, {arm}, {steps} steps", file=sys.stderr)
        found[arm] = alone(_train, steps, arm == "watched")
    return {"steps": steps, **found}


def growth(samples: Sequence[float]) -> float:
    """How much a figure grows in the second half of a run.

    The median of the last tenth of that half less that of its first tenth, so
    that single high samples do not count.

    Args:
        samples: over time, equally spaced, at least 2.
    """
    half = samples[len(samples) // 2 :]
    tenth = max(1, len(half) // 10)
    return float(np.median(half[-tenth:]) - np.median(half[:tenth]))


def report(results: dict[str, Any]) -> Report:
    """Returns what grew, and what should not have."""
    watched, plain = results["watched"], results["plain"]
    rows = [
        [name, *(_course(arm[name]) for arm in (plain, watched))]
        for name in _FIGURES
    ]
    head = ["in the second half", "plain", "watched"]
    return Report(table(head, rows), list(_misses(results)))


def _misses(results: dict[str, Any]) -> Iterator[str]:
    watched, plain = results["watched"], results["plain"]
    more = growth(watched["memory_bytes"]) - growth(plain["memory_bytes"])
    if more > _LEAK * results["steps"] / 2:
        yield f"long run: memory grew by {more:.0f} bytes more than plain"
    for name in ("threads", "files"):
        if growth(watched[name]) > 0:
            yield f"long run: {name} grew"
    if max(watched["written_bytes"]) > _BUDGET + _SMALL_FILES:
        yield "long run: the run directory is larger than its budget"
    if watched["seen"] != results["steps"]:
        yield f"long run: only {watched['seen']} steps were seen"


def _course(samples: Sequence[int]) -> str:
    half = samples[len(samples) // 2 :]
    return f"{half[0]} to {half[-1]}, growth {growth(samples):.0f}"


class _Samples(keras.callbacks.Callback):
    """What the process has taken, at the end of each epoch."""

    def __init__(self, logdir: str) -> None:
        super().__init__()
        self.taken: dict[str, list[int]] = {name: [] for name in _FIGURES}
        self._logdir = Path(logdir)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keras: an epoch is over."""
        gc.collect()
        now = {
            "memory_bytes": status("VmRSS") * 1024,
            "threads": status("Threads"),
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "written_bytes": sum(
                path.stat().st_size for path in self._logdir.glob("*/[!.]*")
            ),
        }
        for name, value in now.items():
            self.taken[name].append(value)


def _train(steps: int, watched: bool) -> dict[str, Any]:
    model, data = tiny()
    with tempfile.TemporaryDirectory() as logdir:
        samples = _Samples(logdir)
        callbacks: list[Any] = [samples]
        if watched:
            from gradwatch import GradWatch  # not in the plain process

            callbacks = [GradWatch(logdir), samples]
        compiled(model).fit(
            data,
            epochs=_SAMPLES,
            steps_per_epoch=steps // _SAMPLES,
            verbose=0,
            shuffle=False,
            callbacks=callbacks,
        )
        seen = callbacks[0].state["steps"] if watched else 0
    return {**samples.taken, "seen": seen}


if __name__ == "__main__":
    command(measure_all, report, __doc__)
