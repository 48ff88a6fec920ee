"""`on_nonfinite="skip"`: the run is that without its bad batches."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch
from gradwatch.blackbox import load
from tests.capture.test_fit import Recorder
from tests.capture.test_replicas import _assert_same as assert_same_copies
from tests.capture.test_replicas import _mirrored, _small
from tests.capture.test_train_step import Two
from tests.models import (
    BATCH,
    GRAPH,
    MODES,
    ROWS,
    WHOLE,
    Mode,
    assert_same,
    classifier,
    data,
    mostly,
    values,
)

SGD = keras.optimizers.SGD
BAD = (0, 5, 6)


def _hurt(bad: Collection[int], rows: int = ROWS) -> tuple[Any, Any, Any]:
    """Data whose batches `bad` hold a NaN each, and rows of the others."""
    x, y = data(rows)
    number = np.arange(rows) // BATCH
    for batch in bad:
        x[batch * BATCH + 3] = np.nan
    return x, y, ~np.isin(number, list(bad))


def _fit(model: Any, x: Any, y: Any, *callbacks: Any, **options: Any) -> Any:
    kept = {"verbose": 0, "shuffle": False, "batch_size": BATCH, **options}
    return model.fit(x, y, callbacks=[*callbacks], **kept)


def _watch(path: Path, **options: Any) -> tuple[GradWatch, Recorder]:
    recorder = Recorder()
    kept = {"xray_every_steps": 0, "on_nonfinite": "skip", **options}
    return GradWatch(path, sinks=[recorder], **kept), recorder


def _large(y: Any, p: Any) -> Any:
    entropy = keras.losses.sparse_categorical_crossentropy(y, p, True)
    return 100.0 * entropy


@pytest.mark.parametrize("mode", mostly(MODES), ids=str)
def test_the_run_is_that_without_the_bad_batches(
    mode: Mode, tmp_path: Path
) -> None:
    """Weights, optimizer, statistics, seeds and metrics, bit by bit."""
    x, y, good = _hurt(BAD, WHOLE if mode.jit_compile else ROWS)
    model, other = classifier(mode), classifier(mode)
    held = "off" if mode.steps_per_execution > 1 else "full"
    watch, recorder = _watch(tmp_path, max_skips=2, blackbox=held)
    history = _fit(model, x, y, watch).history
    # XLA fuses other operations together in a run that is not watched.
    more = [_watch(tmp_path)[0]] if mode.jit_compile else []
    assert _fit(other, x[good], y[good], *more).history == history
    assert_same(model, other)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_batch", 0)
    assert finding.severity == "warning"
    dropped = recorder.column("update_dropped")
    assert set(np.flatnonzero(dropped)) == set(BAD)
    skipped = watch.state["counters"]["skipped_steps"]
    assert skipped == {"nonfinite": 3, "loss_scale": 0, "held": 0}
    assert (watch.state["phase"], watch.state["reason"]) == ("finished", "")


@pytest.mark.parametrize("jit", [False, True])
def test_updates_are_held_until_the_box_is_written(
    jit: bool, tmp_path: Path
) -> None:
    """The rest of an execution, once an incident, and as many times as told.

    Of executions of 8 steps that rest is left out beside the bad steps; a bad
    one among it is one more that is skipped.
    """
    mode = Mode(jit_compile=jit, steps_per_execution=8)
    bad, held = (5, 6, 30, 100), (7, *range(101, 104))
    x, y, good = (np.concatenate([a] * 7) for a in _hurt((), WHOLE))
    number = np.arange(len(x)) // BATCH
    x[np.isin(number, bad)] = np.nan
    good = ~np.isin(number, [*bad, *held])
    model, other = classifier(mode), classifier(mode)
    watch, recorder = _watch(tmp_path)
    history = _fit(model, x, y, watch).history
    more = [_watch(tmp_path)[0]] if jit else []
    assert _fit(other, x[good], y[good], *more).history == history
    assert_same(model, other)
    assert watch.path is not None
    boxes = {
        path.name: load(path).manifest
        for path in (watch.path / "blackbox").iterdir()
    }
    assert {k: m["state"] for k, m in boxes.items()} == {
        "step-5": {"before": 5},
        "step-100": {"before": 100},
    }
    assert {k: m["held_steps"] for k, m in boxes.items()} == {
        "step-5": 1,
        "step-100": 3,
    }
    assert set(np.flatnonzero(recorder.column("update_held"))) == set(held)
    dropped = np.flatnonzero(recorder.column("update_dropped"))
    assert set(dropped) == {*bad, *held}
    skipped = watch.state["counters"]["skipped_steps"]
    assert skipped == {"nonfinite": 4, "loss_scale": 0, "held": 4}


def test_nothing_is_held_once_there_are_five_boxes(tmp_path: Path) -> None:
    """Nor by a step that ends the run; the limit holds meanwhile."""
    mode = Mode(steps_per_execution=4)
    bad = range(1, 72 * 7, 72)
    x, y = (np.concatenate([a] * 32) for a in data(WHOLE))
    x[np.isin(np.arange(len(x)) // BATCH, bad)] = np.nan
    watch, recorder = _watch(tmp_path)
    _fit(classifier(mode), x, y, watch)
    held = [step for first in bad[:5] for step in (first + 1, first + 2)]
    found = np.flatnonzero(recorder.column("update_held"))
    assert found.tolist() == held
    x, y, _ = _hurt(range(1, 6), WHOLE)
    watch, recorder = _watch(tmp_path, max_skips=2)
    mode = Mode(steps_per_execution=16)
    _fit(classifier(mode), x, y, watch)
    last = watch.findings[-1]
    assert (last.rule, last.last_step) == ("too_many_skips", 3)
    assert not recorder.column("update_held").any()
    assert not recorder.column("update_applied")[1:].any()


@pytest.mark.parametrize("mode", mostly(MODES[:4]), ids=str)
def test_too_many_in_a_row_end_the_run(mode: Mode, tmp_path: Path) -> None:
    """The limit holds on the device, in the middle of an execution too."""
    x, y, _ = _hurt(range(5, 12), WHOLE)
    model, other = classifier(mode), classifier(mode)
    watch, recorder = _watch(tmp_path, max_skips=3)
    history = _fit(model, x, y, watch, epochs=2).history
    assert len(history["loss"]) == 1
    assert np.isfinite(history["loss"]).all()
    few = 5 * BATCH
    _fit(other, x[:few], y[:few], _watch(tmp_path)[0])
    assert_same(model, other)
    first, last = watch.findings
    assert (first.rule, first.severity) == ("nonfinite_batch", "warning")
    assert (last.rule, last.severity) == ("too_many_skips", "critical")
    assert (last.first_step, last.last_step) == (5, 8)
    assert "4 in a row" in last.message
    assert watch.state["reason"] == "nonfinite"
    assert not recorder.column("update_applied")[5:].any()


def test_too_many_in_all_end_the_run(tmp_path: Path) -> None:
    """Over epochs and fits; and a run that was stopped may go on."""
    x, y, _ = _hurt(range(0, 16, 2), WHOLE)
    model = classifier()
    watch, _ = _watch(tmp_path, max_skips=1)
    _fit(model, x, y, watch)
    assert watch.state["phase"] == "finished"
    _fit(model, x, y, watch)
    assert watch.findings[-1].rule == "too_many_skips"
    assert watch.findings[-1].last_step == 16 + 2 * 2  # the 11th of them
    assert "11 in all" in watch.findings[-1].message
    assert int(model.optimizer.iterations) == 10
    _fit(model, x, y, watch)
    assert watch.state["phase"] == "finished"
    assert int(model.optimizer.iterations) == 18


def test_two_optimizers_and_an_own_step(tmp_path: Path) -> None:
    """What a first optimizer has changed already is put back as well."""
    x, y, good = _hurt(BAD, 256)
    targets = y[:, None].astype(np.float32)
    trained = []
    for keep in (slice(None), good):
        keras.utils.set_random_seed(1)
        model = Two()
        model.compile()
        _fit(model, x[keep], targets[keep], _watch(tmp_path)[0])
        optimizers = (model.first_optimizer, model.second_optimizer)
        trained.append([*model.variables])
        for optimizer in optimizers:
            trained[-1] += optimizer.variables
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_loss_scaling_skips_for_itself(tmp_path: Path) -> None:
    """Its own skips do not count; a batch of NaN is one of ours."""
    x, y, good = _hurt((9, 10), WHOLE)
    watch, recorder = _watch(tmp_path, max_skips=2)
    trained = []
    for keep, callback in ((slice(None), watch), (good, _watch(tmp_path)[0])):
        model = _small(tf.distribute.get_strategy())
        scaled = keras.optimizers.LossScaleOptimizer(
            SGD(0.01), initial_scale=3e38
        )
        model.compile(scaled, _large)
        _fit(model, x[keep], y[keep], callback)
        trained.append(model)
    assert_same(*trained)
    skipped = watch.state["counters"]["skipped_steps"]
    assert skipped["nonfinite"] == 2
    assert skipped["loss_scale"] > 2
    assert recorder.column("update_dropped")[:3].all()
    assert watch.state["phase"] == "finished"


def test_accumulation_leaves_a_bad_share_out(tmp_path: Path) -> None:
    """What is collected over steps is collected from the good ones."""
    x, y, good = _hurt((4, 5, 6))
    model, other = classifier(), classifier()
    for each in (model, other):
        each.compile(SGD(0.1, gradient_accumulation_steps=3), each.loss)
    _fit(model, x, y, _watch(tmp_path)[0])
    _fit(other, x[good], y[good])
    assert_same(model, other)


def test_replicas_skip_together(tmp_path: Path) -> None:
    """NaN in one share keeps the step from all of them."""
    x, y, good = _hurt((0, 3), 256)
    model, other = _small(_mirrored()), _small(_mirrored())
    watch, _ = _watch(tmp_path)
    history = _fit(model, x, y, watch).history
    assert _fit(other, x[good], y[good]).history == history
    assert_same_copies(model, other)
    assert len(watch.findings) == 1
    assert all(np.isfinite(v).all() for v in values(model).values())


def test_the_default_is_ten_in_a_row(tmp_path: Path) -> None:
    """Ten bad batches are one finding, not ten, and no end."""
    x, y, _ = _hurt(range(2, 12))
    model = classifier(GRAPH)
    watch, _ = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert len(watch.findings) == 1
    assert int(model.optimizer.iterations) == 7
