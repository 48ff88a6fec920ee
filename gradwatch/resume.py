"""A run that goes on after a restart: where its predecessor had come to.

After a crash the same script begins a new run with the same `logdir` and
`name`, and Keras' `BackupAndRestore` brings the optimizer's count back. The new
run's steps go on where the old one had that count, so that curves join.
Standard library and numpy only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Predecessor", "find_predecessor"]

_FILE = "state.json"
_UNSAID_SECONDS = 60.0  # a killed run's last state is at most so old


@dataclass(frozen=True)
class Predecessor:
    """An earlier run of the same name.

    Attributes:
        run: its id.
        steps: int64 `[N]`, ascending: numbers of training batches.
        counts: float64 `[N]`, the optimizer's count before each of them;
            rollbacks take it back, then what came after them counts.
        reach: batches that it may have trained after what is known of it.
    """

    run: str
    steps: NDArray[np.int64]
    counts: NDArray[np.float64]
    reach: float

    def step(self, count: int) -> int | None:
        """Returns the batch that follows `count` updates of the optimizer.

        Between two known batches, and after the last one, the optimizer is
        taken to count evenly, as it does but for updates that were dropped.

        Args:
            count: `optimizer.iterations` as it was restored.

        Returns:
            `None` if the run cannot have had that count.
        """
        stays = np.ones(len(self.counts), bool)
        for i in np.flatnonzero(np.diff(self.counts) < 0).tolist():
            stays[: i + 1] &= self.counts[: i + 1] < self.counts[i + 1]
        counts, steps = self.counts[stays], self.steps[stays]
        moved = np.flatnonzero(np.diff(counts, prepend=-1.0) > 0)
        counts, steps = counts[moved], steps[moved]
        if not len(moved) or count < counts[0]:
            return None
        if count <= counts[-1]:
            return int(np.ceil(np.interp(count, counts, steps) - 1e-6))
        updates = float(counts[-1] - counts[0]) or 1.0
        batches = max(float(steps[-1] - steps[0]), 1.0) / updates
        beyond = math.ceil((count - counts[-1]) * batches - 1e-6)
        last = int(steps[-1]) + beyond
        return last if last <= self.steps[-1] + self.reach else None


def find_predecessor(logdir: Path, name: str) -> Predecessor | None:
    """Returns the newest earlier run of this name, `None` if there is none.

    Args:
        logdir: folder of run directories; one that cannot be read is passed
            over.
        name: the run's name.
    """
    newest: Predecessor | None = None
    start = -math.inf
    for path in logdir.glob(f"{name}-*/{_FILE}"):
        try:
            state = json.loads(path.read_bytes())
            known = state["run"]["name"] == name and state["steps"] > 0
            if known and float(state["run"]["start"]) > start:
                newest = _predecessor(state)
                start = float(state["run"]["start"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return newest


def _predecessor(state: Mapping[str, Any]) -> Predecessor | None:
    history = state["history"]
    counts = _series(history["series"])
    if len(counts) != len(history["steps"]):
        return None
    known = dict(zip(history["steps"], counts))
    newest = [v for s, _, v in state["values"] if s == "optimizer_step"]
    if newest:
        known[state["steps"] - 1] = float(newest[0])
    durations = state["step_duration"]
    number = max(sum(durations["counts"]), 1)
    step_time = max(float(durations["sum"]) / number, 1e-4)
    return Predecessor(
        run=state["run"]["id"],
        steps=np.array(sorted(known), np.int64),
        counts=np.array([known[step] for step in sorted(known)], np.float64),
        reach=_UNSAID_SECONDS / step_time,
    )


def _series(series: Sequence[Any]) -> list[float]:
    for signal, _, values in series:
        if signal == "optimizer_step":
            return [float(value) for value in values]
    return []
