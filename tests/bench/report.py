"""What a report of a long run takes: seconds, memory, megabytes.

    python -m tests.bench.report --steps 100000 --variables 200

The run directory is written by the sinks that every run has, from made Blocks;
the report by `gradwatch report`, in a process of its own. The targets are 20 s
and 10 MB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Epoch,
    Finding,
    Layer,
    Record,
    Run,
    Schema,
    Variable,
)
from gradwatch.runstate import RunState
from gradwatch.signals import SIGNALS, Slot
from gradwatch.sinks.disk import disk_sinks
from tests.bench.command import command
from tests.bench.figures import Report, table

__all__ = ["TARGETS", "measure_all", "report", "write_run"]

TARGETS = {"seconds": 20.0, "megabytes": 10.0}

_ROWS = 250
_EVERY = 200  # steps between two X-rays
_EPOCH = 1000  # steps


def measure_all(steps: int = 100_000, variables: int = 200) -> dict[str, Any]:
    """Writes a run directory and a report of it, in both formats.

    Args:
        steps: of the run.
        variables: of the model, two a layer.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "runs" / "long"
        write_run(run, steps, variables)
        held = sum(f.stat().st_size for f in run.iterdir()) / 1e6
        found: dict[str, Any] = {
            "steps": steps,
            "variables": variables,
            "held": held,
        }
        for name in ("report.html", "report.md"):
            out = Path(folder) / name
            line = [sys.executable, "-m", "gradwatch.cli", "report", str(run)]
            began = time.perf_counter()
            subprocess.run([*line, "-o", str(out)], check=True)
            seconds = time.perf_counter() - began
            found[name] = {
                "seconds": seconds,
                "megabytes": out.stat().st_size / 1e6,
            }
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found["memory"] = used * 1024 / 1e6
    return found


def report(found: dict[str, Any]) -> Report:
    """Returns a table of both formats, against the targets."""
    rows, misses = [], []
    for name in ("report.html", "report.md"):
        cells = [name]
        for figure, target in TARGETS.items():
            cells.append(f"{found[name][figure]:.3g}")
            if found[name][figure] > target:
                misses.append(f"{name}: {cells[-1]} {figure}, not {target:g}")
        rows.append([*cells, f"{found['held']:.3g}", f"{found['memory']:.3g}"])
    heads = [f"{name}, at most {most:g}" for name, most in TARGETS.items()]
    head = ["report", *heads, "run directory, MB", "memory, MB"]
    return Report(table(head, rows), misses)


def write_run(path: Path, steps: int, variables: int) -> None:
    """Writes a run directory by the sinks of every run.

    One step in 10,000, from 5,000 on, is not finite, and a finding tells it.

    Args:
        path: the run directory.
        steps: of the run.
        variables: of the model, two a layer.
    """
    anatomy, schema = _model(steps, variables)
    run = Run(path.name, "long", time.time() - steps / 100, "host", {}, {})
    state = RunState(run)
    sinks = disk_sinks(path, state, 1)[:-1]  # all but the log
    state.begin(anatomy, schema)
    for sink in sinks:
        sink.open(run, schema)

    def put(record: Record) -> None:
        state.fold(record)
        for sink in sinks:
            sink.write(record)

    random = np.random.default_rng(0)
    shape = _ROWS, len(schema.slots)
    for first in range(0, steps, _ROWS):
        noise = random.lognormal(0, 0.3, shape).astype(np.float32)
        block = _block(schema, first, run.start, noise)
        put(block)
        for step in block.steps[block.values[:, 1] != block.values[:, 1]]:
            put(_finding(int(step), anatomy.variables[0].path))
        if (first + _ROWS) % _EPOCH == 0:
            done = first + _ROWS
            told = {"loss": 1e3 / done}
            put(
                Epoch(
                    done // _EPOCH - 1, done, run.start + done / 100, told, told
                )
            )
    put(Beat(time.time(), "finished", steps, 0.0))
    for sink in sinks:
        sink.close()


def _model(steps: int, variables: int) -> tuple[Anatomy, Schema]:
    layers = [f"net/dense_{i}" for i in range(variables // 2)]
    watched = [
        Variable(f"{layer}/{name}", shape, "float32", True, 0.1)
        for layer in layers
        for name, shape in (("kernel", (64, 64)), ("bias", (64,)))
    ]
    subjects = {
        "run": [""],
        "component": ["data", "prior"],
        "variable": [variable.path for variable in watched],
        "layer": layers,
    }
    signals = [s for s in SIGNALS.values() if not s.histogram]
    slots = [
        Slot(signal.name, subject)
        for signal in signals
        for subject in subjects.get(signal.scope, [])
    ]
    facts = tuple(Layer(layer, "Dense", "relu") for layer in layers)
    anatomy = Anatomy(
        model="long",
        layers=facts,
        variables=tuple(watched),
        optimizer={"class_name": "Adam"},
        planned_steps=steps,
    )
    return anatomy, Schema(tuple(slots))


def _block(schema: Schema, first: int, start: float, noise: Any) -> Block:
    """Returns rows of a loss that falls, and of gradients that do."""
    steps = first + np.arange(_ROWS)
    values = noise * np.float32(np.exp(-first / 30_000))
    for i, slot in enumerate(schema.slots):
        if SIGNALS[slot.signal].unit in ("flag", "steps"):
            values[:, i] = 0
        elif SIGNALS[slot.signal].unit == "ratio":
            values[:, i] = np.minimum(values[:, i] / 4, 1)
    xray = steps % _EVERY == 0
    values[np.ix_(~xray, schema.xray)] = np.nan
    bad = steps % 10_000 == 5_000
    norms = schema.columns("variable_gradient_norm").values()
    for column in (1, *norms):
        values[bad, column] = np.nan
    values[bad, schema.column("nonfinite")] = 1
    return Block(steps, start + steps / 100, values, xray)


def _finding(step: int, subject: str) -> Finding:
    return Finding(
        rule="nonfinite_gradient",
        severity="warning",
        subject=subject,
        first_step=step,
        last_step=step,
        evidence={"loss": 1.0},
        causes=(),
        message=f"The gradient was not finite at step {step}.",
        advice="Look for a square root that meets 0.",
    )


if __name__ == "__main__":
    command(measure_all, report, __doc__)
