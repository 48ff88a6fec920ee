"""What judging costs: CPU seconds for each second of a fast run.

    python -m tests.bench.rules

A run of 1,000 steps a second with 200 variables, handed over four times a
second, an X-ray every 200 steps; the target is 2 % of one core.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gradwatch.records import Anatomy, Block, Layer, Schema, Variable
from gradwatch.replay import Opened, judge
from gradwatch.rules import default_rules
from gradwatch.signals import SIGNALS, Slot
from tests.bench.command import command
from tests.bench.figures import Report, table

__all__ = ["measure_all", "report"]

TARGET = 0.02
_STEPS_A_SECOND, _ROWS = 1000, 250
_LAYERS = 100


def measure_all(seconds: int = 20, repeats: int = 5) -> dict[str, Any]:
    """Judges a made-up healthy run, several times; returns CPU seconds."""
    received = _run(seconds * _STEPS_A_SECOND)
    costs = []
    for _ in range(repeats):
        start = time.process_time()
        found = judge(default_rules(), received)
        costs.append(time.process_time() - start)
    return {
        "seconds": seconds,
        "costs": costs,
        "findings": [finding.rule for finding in found],
    }


def report(found: dict[str, Any]) -> Report:
    """Returns the share of a core, and whether it is a miss."""
    share = float(np.median(found["costs"])) / found["seconds"]
    rows = [["all rules", f"{TARGET:.0%}", f"{share:.2%}"]]
    misses = [f"judging: {share:.2%}"] if share > TARGET else []
    return Report(table(["what", "target", "share of a core"], rows), misses)


def _run(steps: int) -> list[Any]:
    paths = [f"net/dense_{i}" for i in range(_LAYERS)]
    variables = [
        Variable(f"{path}/{name}", shape, "float32", True, 0.1)
        for path in paths
        for name, shape in (("kernel", (64, 64)), ("bias", (64,)))
    ]
    layers = tuple(Layer(path, "Dense", "relu") for path in paths)
    subjects = {
        "run": [""],
        "variable": [variable.path for variable in variables],
        "layer": paths,
        "component": ["mean_squared_error"],
        "field": ["inputs", "targets", "predictions"],
    }
    slots = tuple(
        Slot(signal.name, subject)
        for signal in SIGNALS.values()
        if not signal.histogram
        for subject in subjects.get(signal.scope, [])
    )
    anatomy = Anatomy(
        layers=layers, variables=tuple(variables), planned_steps=steps
    )
    schema = Schema(slots)
    received: list[Any] = [Opened(anatomy, schema)]
    random = np.random.default_rng(0)
    noise = random.lognormal(0, 0.1, (_ROWS, len(slots))).astype(np.float32)
    flags = [SIGNALS[slot.signal].unit == "flag" for slot in slots]
    noise[:, flags] = 0
    noise[:, slots.index(Slot("update_applied"))] = 1
    for first in range(0, steps, _ROWS):
        numbers = first + np.arange(_ROWS)
        xray = numbers % 200 == 0
        values = noise * np.float32(np.exp(-first / steps))
        values[:, flags] = noise[:, flags]
        values[np.ix_(~xray, schema.xray)] = np.nan
        received.append(Block(numbers, numbers / 1e3, values, xray))
    return received


if __name__ == "__main__":
    command(measure_all, report, __doc__)
