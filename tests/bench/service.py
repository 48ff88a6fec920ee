"""What the service takes: scrapes, the page, memory, and a core while idle.

    python -m tests.bench.service --runs 100 --variables 30 100 --rounds 10

The service runs in a process of its own, on all of this one's cores, and reads
run directories whose states were folded from made Blocks. `changed`: all
state.json are new since the last scrape, as when all runs train; `kept`: none
is, and a second is over; `cached`: within the second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from gradwatch.metrics import MAX_SERIES
from gradwatch.records import Anatomy, Beat, Block, Run, Schema, Variable
from gradwatch.runstate import RunState
from gradwatch.signals import Slot
from gradwatch.strict_json import dumps
from tests.bench.command import command
from tests.bench.figures import Report, table

__all__ = ["TARGETS", "measure_all", "report"]

TARGETS = {
    "first": 300.0,
    "changed": 300.0,
    "kept": 300.0,
    "cached": 10.0,
    "page": 300.0,
    "rss": 120.0,
    "idle": 3.0,
}
"""Milliseconds (`first` to `page`), MB, and percent of a core."""

_SMALL = {"first": 250.0, "changed": 250.0, "kept": 250.0}
_SMALL_VARIABLES = 30
_RARE = (
    "variable_gradient_max_abs",
    "variable_weight_norm",
    "variable_update_norm",
    "variable_zero_gradient_ratio",
)


def measure_all(
    runs: int = 100,
    variables: tuple[int, ...] = (30, 100),
    rounds: int = 10,
    idle: float = 30.0,
) -> list[dict[str, Any]]:
    """Measures a service of so many runs, with so many variables each.

    Args:
        runs: number of run directories.
        variables: of each run; one measurement each.
        rounds: how often each kind of request is made.
        idle: seconds over which the idle service is looked at.
    """
    return [_measured(runs, each, rounds, idle) for each in variables]


def _measured(
    runs: int, variables: int, rounds: int, idle: float
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        states = [_state(f"run-{i}", variables) for i in range(runs)]
        _write(logdir, states)
        size = sum(p.stat().st_size for p in logdir.glob("*/state.json"))
        with _service(logdir) as (url, process):
            found: dict[str, Any] = {
                "runs": runs,
                "variables": variables,
                "size": size / runs,
                "first": [_took(url, "metrics")],
                **{k: [] for k in ("changed", "cpu", "kept", "cached", "page")},
            }
            for turn in range(rounds):
                print(f"{runs} x {variables}, turn {turn + 1}", file=sys.stderr)
                _write(logdir, states)
                _forget()
                before = _cpu(process.pid)
                found["changed"].append(_took(url, "metrics"))
                found["cpu"].append(1000 * (_cpu(process.pid) - before))
                found["cached"].append(_took(url, "metrics"))
                _forget()
                found["kept"].append(_took(url, "metrics"))
                found["page"].append(_took(url, ""))
            found["series"] = _series(url)
            before = _cpu(process.pid)
            time.sleep(idle)
            used = _cpu(process.pid) - before
            found["idle"] = [100 * used / idle]
            found["rss"] = [_memory(process.pid, "VmRSS")]
            found["peak"] = [_memory(process.pid, "VmHWM")]
    return found


def report(results: list[dict[str, Any]]) -> Report:
    """Returns a table of medians and worst figures, against the targets."""
    rows, misses = [], []
    for found in results:
        cells = [f"{found['runs']} x {found['variables']}"]
        small = found["variables"] <= _SMALL_VARIABLES
        for name, target in {**TARGETS, **(_SMALL if small else {})}.items():
            median, worst = np.median(found[name]), max(found[name])
            one = len(found[name]) == 1
            cells.append(
                f"{worst:.3g}" if one else f"{median:.3g} (worst {worst:.3g})"
            )
            if median > target:
                misses.append(f"{cells[0]} {name}: {median:.3g}, not {target}")
        cpu = f"{np.median(found['cpu']):.3g}"
        cells += [cpu, f"{found['peak'][0]:.3g}", str(found["series"])]
        rows.append(cells)
        if found["series"] > MAX_SERIES:
            misses.append(f"{cells[0]}: {found['series']} series")
    units = [f"{n}, {'MB' if n == 'rss' else 'ms'}" for n in TARGETS][:-1]
    head = [
        "runs x variables",
        *units,
        "idle, % of a core",
        "CPU of changed, ms",
        "peak, MB",
        "series",
    ]
    return Report(table(head, rows), misses)


def _state(run: str, variables: int) -> RunState:
    """A run of 500 steps, four of them X-rays."""
    now = time.time()
    state = RunState(Run(run, "bench", now - 600, "host", {}, {}))
    paths = [f"transformer/block_{i}/dense/kernel" for i in range(variables)]
    watched = [Variable(p, (64, 64), "float32", True, 0.1) for p in paths]
    everyday = ("loss", "gradient_norm", "nonfinite", "learning_rate")
    slots = [Slot(signal) for signal in everyday]
    slots += [Slot("variable_gradient_norm", path) for path in paths]
    slots += [Slot(signal, path) for signal in _RARE for path in paths]
    facts = Anatomy(variables=tuple(watched), planned_steps=1000)
    state.begin(facts, Schema(tuple(slots)))
    random = np.random.default_rng(0)
    values = random.lognormal(size=(500, len(slots))).astype(np.float32)
    values[:, 2] = 0
    steps = np.arange(500)
    state.fold(Block(steps, now - 50 + steps / 10, values, steps % 150 == 9))
    state.fold(Beat(now, "running", 500, now + 3600))
    return state


def _write(logdir: Path, states: list[RunState]) -> None:
    for state in states:
        snapshot = state.snapshot()
        path = logdir / str(snapshot["run"]["id"]) / "state.json"
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(dumps(snapshot))
        new.replace(path)


@contextmanager
def _service(logdir: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "gradwatch.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--logdir", str(logdir)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        with process.stdout as stdout:
            yield stdout.readline().split()[-1], process
    finally:
        process.terminate()
        process.wait(10)


def _forget() -> None:
    """Waits until the service does not share what it has collected."""
    time.sleep(1.1)


def _took(url: str, path: str) -> float:
    """Returns the milliseconds of a request."""
    began = time.perf_counter()
    with urlopen(url + path, timeout=60) as response:
        response.read()
    return 1000 * (time.perf_counter() - began)


def _series(url: str) -> int:
    with urlopen(f"{url}metrics", timeout=60) as response:
        lines = response.read().splitlines()
    return sum(not line.startswith(b"#") for line in lines)


def _cpu(pid: int) -> float:
    """Returns the seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, name: str) -> float:
    """Returns the MB that a process takes (`VmRSS`), or took (`VmHWM`)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (taken,) = (line.split()[1] for line in lines if line.startswith(name))
    return int(taken) * 1024 / 1e6


if __name__ == "__main__":
    command(measure_all, report, __doc__)
