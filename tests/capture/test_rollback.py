"""`on_nonfinite="rollback"`: the run is one that was put back by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradwatch.capture.storage
from gradwatch import GradWatch, UnsupportedError
from gradwatch.blackbox import load
from gradwatch.capture import rollback
from tests.capture.test_fit import Recorder
from tests.capture.test_replicas import _mirrored, _model, _small
from tests.capture.test_skip import _hurt, _large
from tests.capture.test_train_step import Two
from tests.models import (
    BATCH,
    GRAPH,
    MODES,
    WHOLE,
    Mode,
    assert_same,
    at_length,
    classifier,
    data,
)

SGD = keras.optimizers.SGD
FOUR = Mode(steps_per_execution=4)
XLA_FOUR = Mode(jit_compile=True, steps_per_execution=4)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot at every fourth step, good after four more, at any cost."""
    monkeypatch.setattr("gradwatch.capture.rollback._LEAST_STEPS", 4)
    monkeypatch.setattr("gradwatch.capture.rollback._BUDGET", np.inf)
    monkeypatch.setattr("gradwatch.capture.snapshots.QUIET_STEPS", 4)


def _watch(path: Path, **options: Any) -> tuple[GradWatch, Recorder]:
    recorder = Recorder()
    kept = {"xray_every_steps": 0, "on_nonfinite": "rollback", **options}
    return GradWatch(path, sinks=[recorder], **kept), recorder


def _fit(model: Any, x: Any, y: Any, *callbacks: Any, **options: Any) -> Any:
    kept = {"verbose": 0, "shuffle": False, "batch_size": BATCH, **options}
    return model.fit(x, y, callbacks=[*callbacks], **kept)


def _optimizers(model: Any) -> list[Any]:
    kind = keras.optimizers.Optimizer
    return [v for v in vars(model).values() if isinstance(v, kind)]


def _state(model: Any) -> list[Any]:
    """All variables but metrics, of all replicas, as TensorFlow has them."""
    known = [*model.variables]
    for optimizer in _optimizers(model):
        known += optimizer.variables
    local = model.distribute_strategy.experimental_local_results
    return [part for variable in known for part in local(variable.value)]


def _by_hand(
    model: Any,
    x: Any,
    y: Any,
    backs: Mapping[int, int],
    *,
    left_out: Iterable[int] = (),
    lower: Any = None,
    callbacks: Iterable[Any] = (),
) -> None:
    """Trains without gradwatch; values are kept and given back by hand.

    Args:
        model: it is trained on one batch at a time.
        x: inputs.
        y: targets.
        backs: bad step -> the step whose state the model goes back to.
        left_out: other steps that are not made.
        lower: called at each rollback; halves the optimizers' rates by default.
        callbacks: for each batch.
    """
    for optimizer in _optimizers(model):
        if not optimizer.built and model.optimizer is optimizer:
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
    last_back = max(backs.values())
    kept: dict[int, list[Any]] = {}
    for step in range(-(-len(x) // BATCH)):
        if step <= last_back:
            kept[step] = [part.numpy() for part in _state(model)]
        rows = slice(step * BATCH, (step + 1) * BATCH)
        if step not in backs:
            if step not in left_out:
                _fit(model, x[rows], y[rows], *callbacks)
            continue
        rates = [_rate(o) for o in _optimizers(model)]
        halves = [None if r is None else float(r.numpy()) / 2 for r in rates]
        for part, value in zip(_state(model), kept[backs[step]], strict=True):
            part.assign(value)
        if lower is not None:
            lower()
            continue
        for optimizer, half in zip(_optimizers(model), halves, strict=True):
            if half is not None:
                _rate(optimizer).assign(half)


def _rate(optimizer: Any) -> Any:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = inner._learning_rate
    return rate.value if isinstance(rate, keras.Variable) else None


def _assert_same(left: Any, right: Any, exact: bool = True) -> None:
    ours, theirs = _state(left), _state(right)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if exact:
            np.testing.assert_array_equal(a, b, err_msg=a.name)
        else:
            np.testing.assert_allclose(a, b, 1e-5, 1e-6, err_msg=a.name)


def _told(watch: GradWatch) -> dict[int, int]:
    """Bad step -> where the model went back to, as findings say."""
    told = [f for f in watch.findings if f.rule == "rolled_back"]
    return {f.first_step: f.evidence["step"] for f in told}


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("mode", "backs", "left_out"),
    [
        (GRAPH, {0: 0, 6: 0, 22: 15}, ()),
        (FOUR, {0: 0, 6: 0, 22: 16}, (1, 2, 3, 7, 23)),
        *at_length([(MODES[2], {0: 0, 6: 0, 22: 15}, ())]),
        (XLA_FOUR, {0: 0, 6: 0, 22: 16}, (1, 2, 3, 7, 23)),
        (MODES[4], {0: 0, 6: 0, 22: 15}, ()),
    ],
    ids=lambda of: str(of) if isinstance(of, Mode) else "",
)
def test_the_run_is_one_put_back_by_hand(
    mode: Mode, backs: dict[int, int], left_out: tuple[int, ...], tmp_path: Path
) -> None:
    """Weights, statistics, seeds, optimizer: back together, rate halved."""
    x, y = (np.concatenate([part] * 2) for part in data(WHOLE))
    for bad in backs:
        x[bad * BATCH] = np.nan
    drop = 0 if mode.jit_compile else 0.3
    plain = Mode(run_eagerly=mode.run_eagerly)
    model, other = classifier(mode, drop=drop), classifier(plain, drop=drop)
    watch, recorder = _watch(tmp_path)
    history = _fit(model, x, y, watch).history
    assert _told(watch) == backs
    _by_hand(other, x, y, backs, left_out=left_out)
    _assert_same(model, other, exact=not mode.jit_compile)
    assert float(model.optimizer.learning_rate) == np.float32(0.001) / 8
    assert np.isfinite(history["loss"]).all()
    back = recorder.column("rollback_steps")
    assert {int(s): int(s + 1 - back[s]) for s in np.flatnonzero(back)} == backs
    assert not recorder.column("update_applied")[[*backs, *left_out]].any()
    assert watch.state["counters"]["rollbacks"] == 3
    assert (watch.state["phase"], watch.state["reason"]) == ("finished", "")
    first, *rest = watch.findings
    assert (first.rule, first.severity) == ("nonfinite_batch", "warning")
    assert {(f.rule, f.severity) for f in rest} == {("rolled_back", "warning")}


@pytest.mark.usefixtures("often")
def test_on_the_disk_it_is_the_same(tmp_path: Path) -> None:
    """Weights, averages, counts; the files have no name."""
    backs = {0: 0, 6: 0, 22: 15}
    x, y = (np.concatenate([part] * 2) for part in data(WHOLE))
    for bad in backs:
        x[bad * BATCH] = np.nan
    models = []
    for place in ("memory", "disk"):
        models.append(classifier(drop=0.3))
        models[-1].compile(keras.optimizers.Adam(use_ema=True), models[-1].loss)
        watch, _ = _watch(tmp_path / place, snapshots=place)
        _fit(models[-1], x, y, watch)
        assert _told(watch) == backs
        assert list((tmp_path / place).iterdir()) == [watch.path]
    _assert_same(*models)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("mode", [GRAPH, MODES[4]], ids=str)
def test_reading_snapshots_changes_nothing(mode: Mode, tmp_path: Path) -> None:
    """A healthy run is bit by bit that of plain `fit`."""
    x, y = data()
    model, other = classifier(mode), classifier(mode)
    watch, _ = _watch(tmp_path)
    ours = _fit(model, x, y, watch).history
    assert ours == _fit(other, x, y).history
    assert_same(model, other)
    assert watch.findings == []


def test_after_the_last_rollback_the_run_ends(
    often: None, tmp_path: Path
) -> None:
    """With the snapshot's weights; the black box is one, of the first step."""
    x, y, _ = _hurt(range(10, 16), WHOLE)
    model, other = classifier(), classifier()
    watch, recorder = _watch(tmp_path, max_rollbacks=2)
    _fit(model, x, y, watch, epochs=3)
    assert _told(watch) == {10: 4, 11: 4, 12: 4}
    last = watch.findings[-1]
    assert (last.rule, last.severity) == ("rolled_back", "critical")
    assert "2 rollbacks are allowed" in last.message
    assert len(watch.findings) == 4
    assert (watch.state["phase"], watch.state["reason"]) == (
        "failed",
        "nonfinite",
    )
    assert recorder.steps == list(range(13))
    _fit(other, x[: 4 * BATCH], y[: 4 * BATCH])
    other.optimizer.learning_rate = 0.001 / 4
    _assert_same(model, other)
    assert watch.path is not None
    (box,) = (watch.path / "blackbox").iterdir()
    assert box.name == "step-10"
    assert load(box).manifest["state"] == {"before": 10}
    assert load(box).manifest["on_nonfinite"] == "rollback"
    # A further fit may go back again.
    _fit(model, x, y, watch)
    assert list(_told(watch).values())[3:] == [17, 17, 17]
    assert watch.findings[-1].severity == "critical"


def test_ten_in_a_row(tmp_path: Path) -> None:
    """One incident, ten rollbacks to the start, and the run goes on."""
    x, y, _ = _hurt(range(3, 13), WHOLE)
    model = classifier()
    watch, _ = _watch(tmp_path, max_rollbacks=10, rollback_factor=1.0)
    _fit(model, x, y, watch)
    assert [f.rule for f in watch.findings] == [
        "nonfinite_batch",
        *["rolled_back"] * 10,
    ]
    other = classifier()
    rows = slice(13 * BATCH, None)
    _fit(other, x[rows], y[rows])
    _assert_same(model, other)
    assert watch.state["phase"] == "finished"


def _line(steps: int) -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    x = random.normal(size=(steps * BATCH, 4)).astype(np.float32)
    return x, x @ np.array([[1.0], [-2.0], [0.5], [3.0]], np.float32)


def _linear(optimizer: Any) -> Any:
    keras.utils.set_random_seed(2)
    layers = [keras.Input((4,)), keras.layers.Dense(1, name="line")]
    model = keras.Sequential(layers, name="net")
    model.compile(optimizer, "mse")
    return model


def test_a_rate_that_explodes_comes_through(tmp_path: Path) -> None:
    """From the start it is too high; after two rollbacks the line is found."""
    x, y = _line(400)
    plain = _linear(SGD(2.0))
    _fit(plain, x, y)
    assert not np.isfinite(plain.get_weights()[0]).any()
    model = _linear(SGD(2.0))
    watch, recorder = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert set(_told(watch).values()) == {0}
    assert watch.state["phase"] == "finished"
    assert float(model.optimizer.learning_rate) <= 0.5
    assert recorder.column("loss")[-1] < 1e-8


def test_a_later_explosion_goes_back_to_before_it(tmp_path: Path) -> None:
    """Snapshots of a model that diverges, still finite, are none."""
    x, y = _line(300)
    model = _linear(SGD(0.05))

    def begin(epoch: int, logs: Any) -> None:
        if epoch == 1:  # at step 300
            model.optimizer.learning_rate = 1.5

    watch, recorder = _watch(tmp_path, rollback_factor=0.1)
    change = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    noise = np.random.default_rng(0).normal(0, 0.1, y.shape)
    _fit(model, x, y + noise.astype(np.float32), change, watch, epochs=3)
    ((bad, to),) = _told(watch).items()
    assert 0 < to <= 306
    loss = recorder.column("loss")
    assert loss[bad - 1] > 1e10
    assert loss[bad + 1 :].max() < 1.0
    assert {f.rule for f in watch.findings} <= {
        "nonfinite_gradient",
        "nonfinite_loss",
        "nonfinite_weight",
        "rolled_back",
        "diverging_loss",
        "exploding_gradient",
        "gradient_spike",
    }


def test_weights_that_an_update_has_lost(tmp_path: Path) -> None:
    """An update that overflows is found a step later, and undone."""
    x, y = _line(8)
    model = _linear(SGD(3e38))
    before = model.get_weights()
    watch, _ = _watch(tmp_path, max_rollbacks=1, rollback_factor=1e-39)
    _fit(model, x, y, watch)
    first, second = watch.findings
    assert (first.rule, first.severity) == ("nonfinite_weight", "warning")
    assert "these weights are lost" in first.message
    assert second.evidence["step"] == 0
    assert watch.state["phase"] == "finished"
    for now, then in zip(model.get_weights(), before, strict=True):
        assert np.isfinite(now).all()
        assert np.abs(now - then).max() < 10


class _Halved(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule, times what is due after some rollbacks."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule
        self.scale = tf.Variable(1.0)

    def __call__(self, step: Any) -> Any:
        """The rate at a step."""
        return self.schedule(step) * self.scale

    def halve(self) -> None:
        """At a rollback."""
        self.scale.assign(self.scale / 2)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("kind", ["schedule", "function"])
def test_what_computes_a_rate_is_left_alone(kind: str, tmp_path: Path) -> None:
    """The step takes the part of it that is due; the optimizer keeps it."""
    backs = {3: 0, 14: 8}
    x, y, _ = _hurt(backs, WHOLE)

    def schedule() -> Any:
        if kind == "function":
            return lambda *step: tf.constant(0.1)
        return keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)

    one = tf.distribute.get_strategy()
    model, other = _small(one), _small(one)
    mine, halved = schedule(), _Halved(schedule())
    for each, kept in ((model, mine), (other, halved)):
        each.compile(SGD(kept, momentum=0.9), each.loss)
    watch, recorder = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert _told(watch) == backs
    _by_hand(other, x, y, backs, lower=halved.halve)
    _assert_same(model, other)
    assert model.optimizer._learning_rate is mine
    assert "_get_current_learning_rate" not in vars(model.optimizer)
    rates = recorder.column("learning_rate")
    count = recorder.column("optimizer_step")
    scale = np.repeat([1.0, 0.5, 0.25], [4, 11, 1])
    computed = [float(mine(tf.constant(int(step)))) for step in count]
    np.testing.assert_allclose(rates, computed * scale, rtol=1e-6)
    assert count[4] == 0  # the schedule goes back as well


def test_accumulated_gradients_go_back_with_their_count(
    often: None, tmp_path: Path
) -> None:
    """Collecting goes on where the snapshot had come to."""
    backs = {11: 4}
    x, y, _ = _hurt(backs, WHOLE)
    model, other = classifier(), classifier()
    for each in (model, other):
        each.compile(SGD(0.1, gradient_accumulation_steps=3), each.loss)
    watch, _ = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert _told(watch) == backs
    _by_hand(other, x, y, backs)
    _assert_same(model, other)
    assert int(model.optimizer._iterations) == 4 + 4


def test_loss_scaling_skips_for_itself(often: None, tmp_path: Path) -> None:
    """Its own skips are no bad steps; its scale goes back with the rest."""
    backs = {11: 4}
    x, y, _ = _hurt(backs, WHOLE)
    one = tf.distribute.get_strategy()
    model, other = _small(one), _small(one)
    for each in (model, other):
        scaled = keras.optimizers.LossScaleOptimizer(
            SGD(0.01), initial_scale=3e38
        )
        each.compile(scaled, _large)
    watch, _ = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert _told(watch) == backs
    _by_hand(other, x, y, backs)
    _assert_same(model, other)
    assert watch.state["counters"]["skipped_steps"]["loss_scale"] > 2
    inner = model.optimizer.inner_optimizer
    assert float(inner.learning_rate) == np.float32(0.01) / 2


def test_several_optimizers_and_an_own_step(
    often: None, tmp_path: Path
) -> None:
    """All of them go back, and all rates are lower."""
    backs = {0: 0, 7: 2}
    x, y, _ = _hurt(backs, 320)
    targets = y[:, None].astype(np.float32)
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        models.append(Two())
        models[-1].compile()
    model, other = models
    watch, _ = _watch(tmp_path)
    _fit(model, x, targets, watch)
    assert _told(watch) == backs
    assert not model.optimizer.built
    other(x[:1])
    other.first_optimizer.build(other.hidden.trainable_variables)
    other.second_optimizer.build(other.out.trainable_variables)
    other.optimizer.build = lambda weights: None
    _by_hand(other, x, targets, backs)
    _assert_same(model, other)
    assert float(model.second_optimizer.learning_rate) == np.float32(0.1) / 4


def test_a_multi_optimizer(tmp_path: Path) -> None:
    """The rates of the optimizers inside are lowered."""
    x, y, _ = _hurt((3,), 256)
    model = classifier()
    inside = keras.optimizers.OptimizerMap(SGD(0.1))
    inside["hidden/.*"] = keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
    )
    optimizer = keras.optimizers.MultiOptimizer(inside)
    model.compile(optimizer, model.loss)
    watch, _ = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert _told(watch) == {3: 0}
    rates = {type(o).__name__: o for o in optimizer.optimizers}
    assert float(rates["SGD"].learning_rate) == np.float32(0.1) / 2
    assert int(rates["SGD"].iterations) == 4
    assert watch.state["phase"] == "finished"


@pytest.mark.parametrize("kind", ["variable", *at_length(["schedule"])])
def test_replicas_go_back_together(
    kind: str, often: None, tmp_path: Path
) -> None:
    """Each to its own statistics and seeds; NaN in one share is enough."""
    backs = {0: 0, 10: 5}
    x, y, _ = _hurt(backs, 384)
    halved = []

    def make() -> Any:
        if kind == "variable":
            return keras.optimizers.Adam()
        plain = keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
        halved.append(_Halved(plain))
        return SGD(halved[-1] if len(halved) == 2 else plain)

    model = _model(_mirrored(), make=make)
    other = _model(_mirrored(), make=make)
    watch, _ = _watch(tmp_path)
    _fit(model, x, y, watch)
    assert _told(watch) == backs
    lower = halved[-1].halve if halved else None
    _by_hand(other, x, y, backs, lower=lower)
    _assert_same(model, other)


def test_an_epoch_of_nothing_shows_nan(tmp_path: Path) -> None:
    """And not 0, the best loss ever; the next one is its own."""
    x, y, _ = _hurt((0,), 256)
    mode = Mode(steps_per_execution=8)
    model, other = classifier(mode), classifier(mode)
    watch, _ = _watch(tmp_path)
    both = [x[:256], data(256)[0]]

    def batches() -> Any:
        for inputs in both:
            for start in range(0, 256, BATCH):
                yield inputs[start : start + BATCH], y[start : start + BATCH]

    spec = (
        tf.TensorSpec([None, 8], tf.float32),
        tf.TensorSpec([None], tf.int64),
    )
    stream = tf.data.Dataset.from_generator(batches, output_signature=spec)
    history = model.fit(
        stream,
        epochs=2,
        steps_per_epoch=8,
        shuffle=False,
        verbose=0,
        callbacks=[watch],
    ).history
    other.optimizer.learning_rate = 0.0005
    plain = _fit(other, both[1], y).history
    assert np.isnan([history["loss"][0], history["accuracy"][0]]).all()
    assert (history["loss"][1], history["accuracy"][1]) == (
        plain["loss"][0],
        plain["accuracy"][0],
    )


@pytest.mark.parametrize(
    ("place", "storage", "error"),
    [
        ("memory", "InMemory", MemoryError("full")),
        ("disk", "OnDisk", OSError(28, "No space left on device")),
    ],
)
def test_without_room_the_run_ends(
    place: str,
    storage: str,
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No snapshot, no rollback: as with `stop`, and the log says why."""

    def fails(*args: Any) -> None:
        raise error

    kind = getattr(gradwatch.capture.storage, storage)
    monkeypatch.setattr(kind, "write", fails)
    x, y, _ = _hurt((4,), 256)
    model, other = classifier(), classifier()
    watch, _ = _watch(tmp_path, snapshots=place)
    _fit(model, x, y, watch)
    _fit(other, x[: 4 * BATCH], y[: 4 * BATCH])
    assert_same_weights(model, other)
    assert watch.state["reason"] == "nonfinite"
    assert _told(watch) == {}
    logged = [r for r in caplog.records if "No snapshot" in r.getMessage()]
    assert len(logged) == 1


def assert_same_weights(left: Any, right: Any) -> None:
    """Of two models, bit by bit."""
    for a, b in zip(left.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_own_loops_are_refused(tmp_path: Path) -> None:
    """Before the first step, with what to do."""
    watch, _ = _watch(tmp_path)
    with (
        pytest.raises(UnsupportedError, match="Use `fit`"),
        watch.watching(classifier()),
    ):
        pass


@pytest.mark.parametrize(
    ("cost", "apart"),
    [(1e-4, 64), (0.01, 100), (0.25, 2500), (20.0, 60_000)],
)
def test_snapshots_cost_one_percent(
    cost: float, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 10 ms; from 64 steps apart up to 600 s of training."""
    now, taken = [0.0], []

    class Fake:
        """Snapshots that only take their time."""

        def take(self, step: int) -> None:
            """Takes one."""
            taken.append(step)
            now[0] += cost

        def forget(self) -> None:
            """Nothing to do."""

        def whole(self) -> bool:
            """All that there is."""
            return True

    clock = "gradwatch.capture.rollback.time.perf_counter"
    monkeypatch.setattr(clock, lambda: now[0])
    kept = rollback.Rollback(classifier(), 0.5)
    monkeypatch.setattr(kept, "_snapshots", Fake())

    def calm(first: int, last: int) -> Any:
        return np.ones(last - first, np.float32)

    kept.executes(0)
    for step in range(1, 4 * apart + 1):
        kept.executed(step, step / 100, calm)
    gaps = set(np.diff(taken).tolist())
    assert gaps <= {apart, apart + 1}
    assert len(taken) in (4, 5)


def test_what_climbs_is_no_snapshot() -> None:
    """The last four losses are ten times all before, and rise; or stand."""
    kept = rollback.Rollback(classifier(), 0.5)
    losses = np.r_[np.ones(100), 1.2 ** np.arange(200), np.full(200, 1e16)]
    losses = losses.astype(np.float32)
    taken = []
    kept.executes(0)
    for step in range(1, 500):
        kept.executed(step, float(step), lambda a, b: losses[a:b])
        taken.append(kept._snapshots.newest)
    assert sorted(set(taken)) == [0, 64, 384, 448]
