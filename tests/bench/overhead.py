"""What watching costs: ratios to plain `fit`, with their targets.

    python -m tests.bench.overhead --rounds 10 --seconds 20

Trust the ratios, not the times. A target is missed when the whole 95 % interval
lies above it. Wall time is what `fit` takes, CPU time what all threads of the
process take, worker threads included.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.bench.arms import CHECKED, OURS, PEERS, Plan, measure
from tests.bench.command import command
from tests.bench.figures import Report, estimate, table
from tests.bench.process import alone
from tests.bench.workloads import WORKLOADS

__all__ = [
    "TARGETS",
    "joined",
    "measure_all",
    "measure_one",
    "report",
    "settings",
]

TARGETS = {
    "mlp": {"record": 1.03, "guard": 1.06, "default": 1.07},
    "cnn": {"record": 1.01, "guard": 1.02, "default": 1.03},
    "transformer": {"record": 1.01, "guard": 1.04, "default": 1.05},
    "tiny": {"record": 1.08, "guard": 1.15, "default": 1.20},
    "embedding": {"record": 1.02, "guard": 1.04, "default": 1.04},
}
"""Ratio to plain `fit`, by workload and arm."""


class Setting(NamedTuple):
    """What is measured in one process.

    Attributes:
        workload: its name.
        jit: whether XLA compiles the step.
        arms: what trains in turns.
        plan: how long.
        cores: how many it is pinned to.
    """

    workload: str
    jit: bool
    arms: tuple[str, ...]
    plan: Plan
    cores: int


def settings(
    rounds: int = 10,
    seconds: float = 20.0,
    steps: int = 2000,
    only: tuple[str, ...] = tuple(WORKLOADS),
    cores: tuple[int, ...] = (1, 2),
) -> Iterator[Setting]:
    """Yields what there is to measure.

    The peers (what one would do without gradwatch) train in graph mode on most
    cores only; XLA compiles no `check_numerics`.

    Args:
        rounds: see `Plan`.
        seconds: see `Plan`.
        steps: see `Plan`.
        only: the workloads.
        cores: numbers of cores to pin to, if there are so many.
    """
    plan = Plan(rounds, seconds, steps)
    there = [n for n in cores if n <= len(os.sched_getaffinity(0))]
    for n in there:
        for workload in only:
            peers = [(*OURS, *PEERS), CHECKED] if n == 2 else [OURS]
            modes = [*((False, names) for names in peers), (True, OURS)]
            for jit, names in modes:
                yield Setting(workload, jit, names, plan, n)


def measure_one(setting: Setting) -> dict[str, Any]:
    """Measures a setting, in a process of its own."""
    workload, jit, arms, plan, cores = setting
    print(f"{workload}, {_mode(jit)}, {cores}", file=sys.stderr)
    found = alone(measure, workload, jit, arms, plan, cores=cores)
    return {"cores": cores, **found}


def measure_all(
    rounds: int = 10,
    seconds: float = 20.0,
    steps: int = 2000,
    only: tuple[str, ...] = tuple(WORKLOADS),
    cores: tuple[int, ...] = (1, 2),
) -> list[dict[str, Any]]:
    """Measures all settings; see there for the arguments."""
    plan = (rounds, seconds, steps, only, cores)
    return [measure_one(setting) for setting in settings(*plan)]


def joined(
    known: Sequence[dict[str, Any]], found: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns the results with a new one, in the place of an older one."""

    def setting(result: dict[str, Any]) -> Any:
        return _setting(result), tuple(result["wall"])

    return [r for r in known if setting(r) != setting(found)] + [found]


def report(results: Sequence[dict[str, Any]]) -> Report:
    """Returns tables of the costs and of what explains them."""
    rows, misses = [], []
    for result in results:
        for arm in [name for name in result["wall"] if name != "plain"]:
            target = TARGETS[result["workload"]].get(arm)
            cells = []
            for clock in ("wall", "cpu"):
                costs = result[clock]
                found = estimate(costs[arm], costs["plain"])
                cells.append(found.text(target))
                if target and not found.meets(target):
                    where = ", ".join((*_setting(result), arm, clock))
                    misses.append(f"{where}: {found.text()}, not {target}")
            goal = f"{target:.2f}" if target else ""
            rows.append([*_setting(result), arm, goal, *cells])
    head = ["workload", "mode", "cores", "arm", "target", "wall", "CPU"]
    text = f"{table(head, rows)}\n\n{_explanation(results)}"
    return Report(text, misses)


def _explanation(results: Sequence[dict[str, Any]]) -> str:
    head = ["workload", "mode", "cores", "plain step", "rounds"]
    head += ["gradients", "one pass over them", "operations"]
    return table(head, list(_explanations(results)))


def _explanations(results: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for result in results:
        step = float(np.median(result["wall"]["plain"]))
        once = result["gradient_pass"]
        counts = result["operations"].items()
        yield [
            *_setting(result),
            f"{1e3 * step:.2f} ms",
            f"{len(result['wall']['plain'])} x {result['steps']} steps",
            f"{result['gradient_bytes'] / 1e6:.2g} MB",
            f"{1e3 * once:.3f} ms, {once / step:.1%}",
            ", ".join(f"{arm} {count}" for arm, count in counts),
        ]


def _setting(result: dict[str, Any]) -> tuple[str, str, str]:
    return result["workload"], _mode(result["jit"]), str(result["cores"])


def _mode(jit: bool) -> str:
    return "XLA" if jit else "graph"


if __name__ == "__main__":
    command(measure_all, report, __doc__)
