"""What watching costs: interleaved with plain `fit`, ratio of medians.

    python -m tests.bench.overhead --rounds 10 --seconds 2

In each round every arm trains its own copy of the model for the same number of
steps, in a new random order. The figure is the median over rounds of an arm's
time divided by the median of the plain arm's; its interval comes from
resampling the rounds (percentile bootstrap, 95 %). Trust ratios, not times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from gradwatch import GradWatch
from tests.bench.workloads import WORKLOADS

__all__ = ["main"]

_RESAMPLED = 2000


class _Arm:
    """One way to train a workload; keeps model, data and watcher."""

    def __init__(
        self, build: Callable[[], Any], callbacks: list[Any], jit: bool
    ) -> None:
        keras.utils.set_random_seed(0)
        self.model, self.data = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile("adam", loss, jit_compile=jit)
        self.callbacks = callbacks

    def seconds(self, steps: int) -> float:
        """Trains for `steps`; returns the seconds of the epoch alone."""
        times: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: times.append(time.perf_counter()),
            on_epoch_end=lambda *_: times.append(time.perf_counter()),
        )
        self.model.fit(
            self.data,
            steps_per_epoch=steps,
            verbose=0,
            shuffle=False,
            callbacks=[*self.callbacks, clock],
        )
        return times[1] - times[0]


def _arms(build: Callable[[], Any], jit: bool, logdir: str) -> dict[str, _Arm]:
    arms: dict[str, list[Any]] = {
        "plain": [],
        "record": [GradWatch(logdir, on_nonfinite="record")],
        "stop": [GradWatch(logdir)],
    }
    return {name: _Arm(build, each, jit) for name, each in arms.items()}


def _measure(
    name: str, jit: bool, rounds: int, seconds: float
) -> dict[str, Any]:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as logdir:
        arms = _arms(WORKLOADS[name], jit, logdir)
        for arm in arms.values():
            arm.seconds(20)
        steps = max(20, int(seconds / (arms["plain"].seconds(50) / 50)))
        times: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(rounds):
            for arm in random.permutation(list(arms)).tolist():
                times[arm].append(arms[arm].seconds(steps) / steps)
    return {"workload": name, "jit": jit, "steps": steps, "seconds": times}


def _ratio(arm: list[float], plain: list[float]) -> tuple[float, float, float]:
    """Returns the ratio of medians and the ends of its 95 % interval."""
    ours, theirs = np.array(arm), np.array(plain)
    random = np.random.default_rng(0)
    picks = random.integers(0, len(ours), (_RESAMPLED, len(ours)))
    ratios = np.median(ours[picks], axis=1) / np.median(theirs[picks], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(ours) / np.median(theirs)), float(low), float(high)


def main() -> None:
    """Measures what the arguments name, prints a table, saves raw figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--json", type=Path, default=None)
    chosen = parser.parse_args()
    results = []
    for name in chosen.only:
        found = _measure(name, chosen.jit, chosen.rounds, chosen.seconds)
        results.append(found)
        plain = found["seconds"]["plain"]
        step = 1e3 * float(np.median(plain))
        print(f"{name} ({step:.2f} ms a step, {found['steps']} steps a round)")
        for arm in ("record", "stop"):
            ratio, low, high = _ratio(found["seconds"][arm], plain)
            print(f"  {arm:7} {ratio:.3f}  [{low:.3f}, {high:.3f}]")
    if chosen.json:
        facts = {
            "python": platform.python_version(),
            "keras": keras.__version__,
        }
        text = json.dumps({**facts, "cores": os.cpu_count(), "runs": results})
        chosen.json.write_text(text)


if __name__ == "__main__":
    main()
