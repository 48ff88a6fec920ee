"""What the beats of a real `fit` say that the training thread is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwatch import GradWatch
from gradwatch.exports import exports
from gradwatch.families import families
from tests.models import GRAPH, MODES, Mode, classifier

NAME = "callback_seconds_total"


class Hangs:
    """Batches, of which the data pipeline keeps one back until `go_on`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        random = np.random.default_rng(0)
        for batch in range(12):
            if batch == self.at:
                assert self.go_on.wait(60)
            x = random.normal(size=(32, 8)).astype(np.float32)
            yield x, random.integers(0, 3, 32)


def _until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("mode", [GRAPH, MODES[4]], ids=str)
def test_a_step_that_hangs_is_told(tmp_path: Path, mode: Mode) -> None:
    """Beats go on and say since when the step runs; it was not compiled."""
    watch, batches = GradWatch(tmp_path), Hangs(at=8)
    model = classifier(mode)
    trainer = threading.Thread(
        target=lambda: model.fit(
            iter(batches),
            steps_per_epoch=12,
            verbose=0,
            shuffle=False,
            callbacks=[watch],
        )
    )
    trainer.start()
    try:
        _until(lambda: watch.state.get("steps", 0) >= batches.at)
        before = watch.state  # its beat may be of the step before
        _until(lambda: watch.state["heartbeat"] > before["heartbeat"])
        _until(lambda: watch.state["step_began"] > 0)
        first = watch.state
        _until(lambda: watch.state["heartbeat"] > first["heartbeat"])
        later = watch.state
    finally:
        batches.go_on.set()
        trainer.join(60)
    assert later["step_began"] == first["step_began"]
    assert later["step_began"] <= later["heartbeat"]
    assert (later["phase"], later["compiling"]) == ("running", False)
    assert (watch.state["step_began"], watch.state["steps"]) == (0.0, 12)


def test_a_callback_that_takes_long_is_no_step(tmp_path: Path) -> None:
    """While another callback works, say for a checkpoint, no step runs."""
    told: list[tuple[float, bool]] = []

    def look(batch: int, logs: Any) -> None:
        if batch == 8:
            before = watch.state["heartbeat"]
            _until(lambda: watch.state["heartbeat"] > before)
            told.append((watch.state["step_began"], watch.state["compiling"]))

    watch = GradWatch(tmp_path)
    other = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    batches = iter(Hangs(at=-1))
    classifier().fit(
        batches,
        steps_per_epoch=12,
        verbose=0,
        shuffle=False,
        callbacks=[watch, other],
    )
    assert told == [(0.0, False)]


def test_compiling_is_told(tmp_path: Path) -> None:
    """A step that takes long to trace says that it is being compiled."""
    told: list[tuple[bool, bool]] = []

    class Slow(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if watch._watch is not None and len(told) < 1:
                before = watch.state["heartbeat"]
                _until(lambda: watch.state["heartbeat"] > before)
                told.append(
                    (watch.state["step_began"] > 0, watch.state["compiling"])
                )
            return x

    watch = GradWatch(tmp_path)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(4),
            Slow(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x = np.ones((64, 8), np.float32)
    model.fit(x, x[:, :1], verbose=0, callbacks=[watch])
    assert told == [(True, True)]


def test_examples_and_waiting_are_added_up(tmp_path: Path) -> None:
    """The counters hold every example, of the partial batch too."""
    watch = GradWatch(tmp_path)
    x = np.ones((70, 8), np.float32)
    classifier().fit(
        x, np.zeros(70), batch_size=32, epochs=2, verbose=0, callbacks=[watch]
    )
    counters = watch.state["counters"]
    assert counters["examples"] == 140
    assert 0 < counters["data_wait"] < 60
    assert watch.state["queued"].keys() == {
        "tensorboard",
        "state",
        "findings",
        "log",
    }


def test_what_watching_takes_is_counted(tmp_path: Path) -> None:
    """Of the training thread and of others, over all fits, in the metrics."""
    watch = GradWatch(tmp_path)
    model, x = classifier(), np.ones((64, 8), np.float32)
    costs = []
    for _ in range(2):
        began = time.perf_counter()
        model.fit(x, np.zeros(64), verbose=0, callbacks=[watch])
        costs.append(watch.state["costs"])
        took = time.perf_counter() - began
    assert costs[0].keys() == {"begin", "judge", "write"}
    assert all(costs[1][phase] > costs[0][phase] > 0 for phase in costs[0])
    assert costs[1]["judge"] - costs[0]["judge"] < took
    always, _ = exports(watch.state, families())
    rows = {r.labels[1]: r.value for r in always.rows if r.family == NAME}
    assert rows == costs[1]
