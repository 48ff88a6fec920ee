"""When X-rays are taken, and that they keep their budget."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest

from gradwatch import GradWatch
from gradwatch.capture.optimizer import until_update
from gradwatch.capture.schedule import FIRST, Schedule
from tests.capture.test_fit import Recorder


def _run(
    schedule: Schedule,
    steps: int,
    everyday: float = 0.01,
    xray: float = 0.03,
    executes: int = 1,
    traced: bool = True,
) -> list[int]:
    """Returns the steps with an X-ray of a run with these durations."""
    taken: list[int] = []
    for step in range(0, steps, executes):
        if not schedule.due(step):
            schedule.executed(step, everyday)
            continue
        schedule.taken(step, None if traced and not taken else xray)
        taken.append(step)
    return taken


def test_planned_steps() -> None:
    """Early steps and multiples, never the very first step."""
    taken = _run(Schedule(200, 1.0), 1001)
    assert taken == [*FIRST, 200, 400, 600, 800, 1000]


def test_executions_of_several_steps() -> None:
    """The first execution at or after a planned step is one."""
    taken = _run(Schedule(200, 1.0), 1001, executes=32)
    assert taken == [32, 64, 128, 224, 416, 608, 800]


def test_zero_is_never() -> None:
    """Without a cadence nothing is ever due."""
    assert _run(Schedule(0, 1.0), 1000) == []


@pytest.mark.parametrize("budget", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("xray", [0.0101, 0.05, 2.0])
def test_the_share_stays_below_the_budget(budget: float, xray: float) -> None:
    """However dear an X-ray is, its share stays below; most is made of it."""
    schedule = Schedule(50, budget)
    steps = 40_000
    taken = _run(schedule, steps, xray=xray, traced=False)
    cost = len(taken) * (xray - 0.01)
    time = steps * 0.01 + cost
    # One that was taken before its cost was known may be too dear.
    assert cost <= budget * time + (xray - 0.01) + 1e-6
    assert schedule.share == pytest.approx(cost / time, rel=1e-6)
    affordable = budget * time / (xray - 0.01)
    assert len(taken) >= min(steps // 50, math.floor(affordable / 2), 700)


def test_at_most_four_before_there_is_a_baseline() -> None:
    """Where every step would be an X-ray, four are all until then."""
    schedule = Schedule(1, 0.02)
    taken = 0
    for step in range(1, 100):
        if schedule.due(step):
            schedule.taken(step, 0.03)
            taken += 1
        else:
            break
    assert taken == 4


def _fit(path: Path, batches: int, executes: int, budget: float) -> Recorder:
    """Trains a step of few operations that has much to look at."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((256,)), keras.layers.Dense(512, name="wide")]
    model = keras.Sequential([*layers, keras.layers.Dense(1)], name="net")
    rule = keras.optimizers.SGD(1e-4)
    model.compile(rule, "mse", steps_per_execution=executes)
    x = np.random.default_rng(0).normal(size=(4 * batches, 256))
    recorder = Recorder()
    watch = GradWatch(path, sinks=[recorder], xray_every_steps=1, budget=budget)
    model.fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[watch])
    assert watch.findings == []
    assert recorder.steps == list(range(batches))
    return recorder


@pytest.mark.parametrize("executes", [1, 3])
def test_a_fit_before_there_is_a_baseline(
    executes: int, tmp_path: Path
) -> None:
    """The first execution is traced, four are X-rays, five are measured."""
    recorder = _fit(tmp_path, 10 * executes, executes, 0.02)
    xray = np.concatenate([b.xray for b in recorder.blocks])
    assert np.flatnonzero(xray).tolist() == [i * executes for i in (1, 2, 3, 4)]


def test_a_fit_keeps_the_budget(tmp_path: Path) -> None:
    """Where each step is to be an X-ray, few are, and some still are."""
    budget, steps = 0.2, 800
    recorder = _fit(tmp_path, steps, 1, budget)
    xray = np.concatenate([b.xray for b in recorder.blocks])
    share = recorder.column("xray_share")[xray]
    # Of several, because a busy machine may make any one of them slow.
    assert np.median(share[-5:]) < 1.25 * budget
    assert 6 < xray.sum() < steps / 4
    # As the steps' own times tell it: without the first step, which is traced,
    # and the first X-ray, which is too.
    times = recorder.column("step_time")
    traced = [0, np.flatnonzero(xray)[0]]
    times, xray = np.delete(times, traced), np.delete(xray, traced)
    cost = (times[xray] - np.median(times[~xray])).sum()
    assert cost / times.sum() < 1.5 * budget


def test_an_x_ray_waits_for_the_next_update_once() -> None:
    """Bad steps may put updates off for ever; X-rays are not."""
    schedule = Schedule(200, 1.0)
    asked: list[int] = []

    def wait() -> int:
        asked.append(1)
        return 5

    taken = []
    for step in range(60):
        if schedule.due(step, wait):
            schedule.taken(step, 0.01)
            taken.append(step)
        else:
            schedule.executed(step, 0.01)
    assert taken == [15, 25, 55]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("count", "executes", "steps"),
    [(0, 1, 7), (7, 1, 0), (10, 1, 5), (10, 5, 5), (10, 3, 21), (8, 4, 4)],
)
def test_steps_until_an_update(count: int, executes: int, steps: int) -> None:
    """Of 8, or as near before it as executions can begin."""
    rule = keras.optimizers.SGD(gradient_accumulation_steps=8)
    rule._iterations.assign(count)
    scaled = keras.optimizers.LossScaleOptimizer(rule)
    assert until_update(rule, executes) == steps
    assert until_update(scaled, executes) == steps
    assert until_update(keras.optimizers.SGD(), executes) == 0
    assert until_update(None, executes) == 0


def test_x_rays_meet_updates_of_collected_gradients(tmp_path: Path) -> None:
    """So that rules see how far they move the weights."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(1, name="only")]
    model = keras.Sequential(layers, name="net")
    rule = keras.optimizers.SGD(0.01, gradient_accumulation_steps=8)
    model.compile(rule, "mse")
    x = np.random.default_rng(0).normal(size=(4 * 120, 4))
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder], budget=1.0)
    model.fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[watch])
    xray = np.concatenate([b.xray for b in recorder.blocks])
    assert np.flatnonzero(xray).tolist() == [15, 23, 55, 103]
    assert (recorder.column("update_applied")[xray] == 1).all()
    moved = recorder.column("variable_update_norm", "net/only/kernel")
    assert (moved[xray] > 0).all()
