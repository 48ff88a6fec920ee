"""What watching takes of the host's memory, above plain `fit`.

    python -m tests.bench.memory --repeats 5

Each figure is that of a fresh process after the same number of steps. The plain
one never imports gradwatch, so its modules count, too.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from typing import Any

import numpy as np

from tests.bench.command import command
from tests.bench.figures import Report, versus
from tests.bench.process import alone, status
from tests.bench.workloads import compiled, deep

__all__ = ["TARGET", "measure_all", "report"]

TARGET = 50
"""MB above plain `fit`."""

_ARMS = ("plain", "guard", "default")  # the second one takes no X-rays


def measure_all(
    repeats: int = 2, variables: int = 1000, steps: int = 200
) -> dict[str, Any]:
    """Measures a model of so many variables; MB by arm.

    Fresh processes differ by less than 1 %, so that two of each are enough.
    """
    found: dict[str, list[float]] = {arm: [] for arm in _ARMS}
    for repeat in range(repeats):
        print(f"memory, {1 + repeat} of {repeats}", file=sys.stderr)
        for arm, taken in found.items():
            taken.append(alone(_taken, variables, steps, arm))
    return {"variables": variables, "steps": steps, **found}


def report(results: dict[str, Any]) -> Report:
    """Returns a table of the memory taken, with X-rays and without."""
    sizes = [str(results["variables"]), str(results["steps"])]
    rows = [
        ([arm, *sizes], {"plain": results["plain"], "watched": results[arm]})
        for arm in _ARMS[1:]
    ]
    head = ["memory", "variables", "steps"]
    return versus(head, rows, "MB", TARGET, np.subtract)


def _taken(variables: int, steps: int, arm: str) -> float:
    model, data = deep(variables)
    with tempfile.TemporaryDirectory() as logdir:
        callbacks = []
        if arm != "plain":
            from gradwatch import GradWatch  # not in the plain process

            every = 200 if arm == "default" else 0
            callbacks = [GradWatch(logdir, xray_every_steps=every)]
        compiled(model, learning_rate=1e-6).fit(
            data,
            steps_per_epoch=steps,
            verbose=0,
            shuffle=False,
            callbacks=callbacks,
        )
        gc.collect()
        return status("VmRSS") * 1024 / 1e6


if __name__ == "__main__":
    command(measure_all, report, __doc__)
