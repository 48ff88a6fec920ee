"""Losses of long noisy runs, as Prometheus would have seen them.

`python -m tests.monitoring.recorded` trains the programs below, some thousand
steps each, and writes what the service's page said of them, at 120 moments.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parents[1] / "data" / "losses.json"
SAMPLES = 120
FAULTY = {"no_relation": "stalled_loss", "no_relation_unseen": "stalled_loss"}
"""Program -> what must be said of it."""

_UNSEEN = ("dropout", "slow", "no_relation_unseen")
"""Programs without X-rays: what a constant answer would lose is not known."""

_KEPT = {
    "gradwatch_component_constant_loss",
    "gradwatch_component_lowest_loss",
    "gradwatch_examples",
    "gradwatch_loss_component",
    "gradwatch_loss_window_first",
    "gradwatch_loss_window_mean",
    "gradwatch_loss_window_noise",
    "gradwatch_optimizer_gradient_norm",
    "gradwatch_planned_steps",
    "gradwatch_run_end_timestamp_seconds",
    "gradwatch_step_duration_seconds_count",
    "gradwatch_steps_total",
}


def _classifier(
    x: Any, y: Any, batch: int, epochs: int, *, drop: float = 0.0, **fit: Any
) -> Callable[[Any], None]:
    import keras

    def train(watch: Any) -> None:
        model = keras.Sequential(
            [
                keras.layers.Dense(32, "relu"),
                keras.layers.Dropout(drop),
                keras.layers.Dense(int(y.max()) + 1, "softmax"),
            ]
        )
        loss = "sparse_categorical_crossentropy"
        model.compile(fit.get("optimizer", "adam"), loss)
        model.fit(
            x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[watch]
        )

    return train


def _regression(
    x: Any, y: Any, units: list[int], batch: int, epochs: int, rate: float
) -> Callable[[Any], None]:
    import keras

    def train(watch: Any) -> None:
        hidden = [keras.layers.Dense(n, "relu") for n in units]
        model = keras.Sequential([*hidden, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(rate), "mse")
        model.fit(
            x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[watch]
        )

    return train


def _programs() -> dict[str, Callable[[Any], None]]:
    """Healthy ones and those of `FAULTY`."""
    import keras
    from sklearn.datasets import load_diabetes, load_digits

    random = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    wrong = np.where(
        random.random(len(y)) < 0.4, random.integers(0, 10, 1797), y
    )
    tx, ty = load_diabetes(return_X_y=True)
    ty = ((ty - ty.mean()) / ty.std()).astype(np.float32)
    tx = (tx / tx.std()).astype(np.float32)
    noise = random.normal(size=(1797, 64)).astype(np.float32)
    decay = keras.optimizers.schedules.CosineDecayRestarts(0.01, 800)
    heavy = (ty + random.standard_t(2, len(ty)) / 3).astype(np.float32)
    return {
        "batch_of_4": _classifier(x, y, 4, 10),
        "dropout": _classifier(x, y, 8, 20, drop=0.5),
        "wrong_labels": _classifier(x, wrong, 8, 20),
        "restarts": _classifier(
            x, y, 8, 20, optimizer=keras.optimizers.Adam(decay)
        ),
        "slow": _classifier(x, y, 8, 20, optimizer=keras.optimizers.SGD(0.003)),
        "noisy_line": _regression(tx, ty, [], 2, 20, 0.002),
        "heavy_tails": _regression(tx, heavy, [16], 4, 40, 0.002),
        "no_relation": _classifier(
            noise, y, 16, 40, optimizer=keras.optimizers.SGD(1e-4)
        ),
        "no_relation_unseen": _classifier(
            noise, y, 16, 40, optimizer=keras.optimizers.SGD(5e-5)
        ),
    }


def _record(name: str, train: Callable[[Any], None]) -> dict[str, Any]:
    import keras

    from gradwatch import GradWatch, default_rules
    from gradwatch.testing.recording import Recorder

    recorder = Recorder()
    keras.utils.set_random_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        rules = [*default_rules(), recorder]
        every = 0 if name in _UNSEEN else 200
        watch = GradWatch(folder, rules=rules, xray_every_steps=every)
        train(watch)
        steps = watch.state["steps"]
    findings = [[f.rule, f.severity, f.last_step] for f in watch.findings]
    series = dict(_series(recorder.received, steps))
    return {"steps": steps, "findings": findings, "series": series}


def _series(received: Any, steps: int) -> Iterator[tuple[str, list[Any]]]:
    """Yields series -> its value at each moment."""
    from gradwatch.metrics import RunCollector
    from gradwatch.records import Beat, Block, Run
    from gradwatch.replay import Opened
    from gradwatch.runstate import RunState

    state = RunState(Run("run", "run", 0.0, "host", {}, {}))
    found: dict[str, list[Any]] = {}

    def sample(moment: int) -> None:
        for metric in RunCollector(lambda: [state.snapshot()]).collect():
            for s in metric.samples:
                if s.name in _KEPT:
                    labels = ",".join(
                        f'{k}="{v}"' for k, v in sorted(s.labels.items())
                    )
                    values = found.setdefault(
                        f"{s.name}{{{labels}}}", [None] * SAMPLES
                    )
                    finite = math.isfinite(s.value)
                    values[moment] = (
                        float(f"{s.value:.5g}") if finite else "NaN"
                    )

    moment = 0
    for item in received:
        if isinstance(item, Opened):
            state.begin(item.anatomy, item.schema)
        elif not isinstance(item, Block):
            if not isinstance(item, Beat) or item.phase == "running":
                state.fold(item)
        else:
            due = np.linspace(0, steps, SAMPLES + 1)[1:] - 1
            for row in range(len(item)):
                state.fold(item.rows(np.arange(len(item)) == row))
                while moment < SAMPLES and item.steps[row] >= due[moment]:
                    sample(moment)
                    moment += 1
    yield from found.items()


if __name__ == "__main__":
    only = sys.argv[1:]
    told = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, train in _programs().items():
        if not only or name in only:
            told[name] = _record(name, train)
            print(name, told[name]["steps"], told[name]["findings"], flush=True)
    FILE.write_text(json.dumps(told) + "\n")
