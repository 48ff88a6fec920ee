"""What the first step costs: from the beginning of `fit` to its end.

    python -m tests.bench.trace --repeats 5

Fresh models in turns, plain and watched. This is what tracing costs: the step
itself takes milliseconds.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from gradwatch import GradWatch
from tests.bench.command import command
from tests.bench.figures import Report, versus
from tests.bench.process import alone
from tests.bench.workloads import compiled, deep

__all__ = ["TARGET", "measure_all", "report"]

TARGET = 1.3
"""Ratio to plain `fit`."""

_XLA = 100  # variables at most; XLA compiles a step of more for many minutes


def measure_all(
    repeats: int = 5, variables: tuple[int, ...] = (60, 1000)
) -> list[dict[str, Any]]:
    """Measures first steps of models with so many variables, in seconds."""
    results = []
    for n in variables:
        for jit in (False, True) if n <= _XLA else (False,):
            print(f"first step, {n} variables", file=sys.stderr)
            seconds = alone(_first_steps, n, jit, repeats)
            results.append({"variables": n, "jit": jit, **seconds})
    return results


def report(results: Sequence[dict[str, Any]]) -> Report:
    """Returns a table of first steps."""
    rows = [
        (["first step", f"{r['variables']}", "XLA" if r["jit"] else "graph"], r)
        for r in results
    ]
    return versus(["", "variables", "mode"], rows, "s", TARGET)


class _FirstStep(keras.callbacks.Callback):
    """Clock; the first of the callbacks, so that it begins before them."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras: a fit begins."""
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras: the only step is over, its logs are numbers."""
        self.seconds = time.perf_counter() - self.begun


def _first_steps(
    variables: int, jit: bool, repeats: int
) -> dict[str, list[float]]:
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"plain": [], "watched": []}
    with tempfile.TemporaryDirectory() as logdir:
        for _ in range(1 + repeats):
            for arm in random.permutation(list(seconds)).tolist():
                watch = [GradWatch(logdir)] if arm == "watched" else []
                seconds[arm].append(_first_step(variables, jit, watch))
    # TensorFlow itself is slow at its first trace.
    return {arm: figures[1:] for arm, figures in seconds.items()}


def _first_step(variables: int, jit: bool, callbacks: list[Any]) -> float:
    keras.backend.clear_session()
    gc.collect()
    model, data = deep(variables)
    clock = _FirstStep()
    compiled(model, jit).fit(
        data,
        steps_per_epoch=1,
        verbose=0,
        shuffle=False,
        callbacks=[clock, *callbacks],
    )
    return clock.seconds


if __name__ == "__main__":
    command(measure_all, report, __doc__)
