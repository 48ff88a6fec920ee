"""What optimizers do with gradients: scale, collect, clip, skip."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch
from gradwatch.capture.optimizer import Handed, applied
from tests.capture.test_fit import Recorder
from tests.models import (
    BATCH,
    ROWS,
    WHOLE,
    Mode,
    assert_same,
    at_length,
    batches,
    classifier,
    data,
    fit,
    values,
)

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
MAKES: dict[str, Callable[[], Any]] = {
    "clipnorm": lambda: SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: SGD(0.1, global_clipnorm=0.3),
    "clipvalue": lambda: SGD(0.1, clipvalue=0.02),
    "accumulation": lambda: Adam(gradient_accumulation_steps=4),
    "accumulation_clipped": lambda: SGD(
        0.1, gradient_accumulation_steps=3, global_clipnorm=0.3
    ),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(
        Adam(), initial_scale=1024.0
    ),
    "loss_scale_clipped": lambda: keras.optimizers.LossScaleOptimizer(
        SGD(0.1, global_clipnorm=0.3), initial_scale=1024.0
    ),
    "loss_scale_factor": lambda: SGD(0.1, loss_scale_factor=64.0),
    "schedule_decay_ema": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5),
        weight_decay=0.01,
        use_ema=True,
    ),
}
GRAPH, XLA = Mode(), Mode(jit_compile=True)
COMPILED = (
    "clipnorm",
    "accumulation_clipped",
    "loss_scale_clipped",
    "loss_scale_factor",
    "schedule_decay_ema",
)
"""What all of them do; `test_clip_factor_is_that_of_keras` has `clipvalue`."""


def _model(make: Callable[[], Any], mode: Mode) -> Any:
    model = classifier(mode, drop=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make(), loss, metrics=["accuracy"], **mode._asdict())
    return model


def _gradients(model: Any, x: Any, y: Any) -> list[Any]:
    """The step's own gradients by a plain tape, float64."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), None)
    found = tape.gradient(loss, model.trainable_variables)
    return [g.numpy().astype(np.float64) for g in found]


def _norm(arrays: list[Any]) -> Any:
    return np.linalg.norm([np.linalg.norm(a) for a in arrays])


def _clipped(optimizer: Any, gradients: list[Any]) -> list[Any]:
    """What the optimizer's own options make of gradients, in numpy."""
    if optimizer.clipnorm:
        sizes = [np.linalg.norm(g) for g in gradients]
        top = optimizer.clipnorm
        return [g * min(1, top / s) for g, s in zip(gradients, sizes)]
    if optimizer.global_clipnorm:
        factor = min(1, optimizer.global_clipnorm / _norm(gradients))
        return [g * factor for g in gradients]
    if optimizer.clipvalue:
        top = optimizer.clipvalue
        return [np.clip(g, -top, top) for g in gradients]
    return gradients


@pytest.mark.parametrize("name", MAKES)
def test_watching_changes_nothing(name: str, tmp_path: Path) -> None:
    """Weights and the optimizer's own state are those of plain fit."""
    watched, plain = _model(MAKES[name], GRAPH), _model(MAKES[name], GRAPH)
    watch = GradWatch(tmp_path, xray_every_steps=0)
    got = fit(watched, watch, epochs=2).history
    assert got == fit(plain, epochs=2).history
    assert_same(watched, plain)
    assert watch.findings == []


class _Expected(NamedTuple):
    """What numpy makes of a fit's gradients, `[steps]` each."""

    raw: Any
    applied: Any
    factors: Any


@functools.cache
def _expected(make: Callable[[], Any]) -> _Expected:
    """Trains step by step and collects and clips by itself."""
    model = _model(make, Mode(run_eagerly=True))
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    micro = optimizer.gradient_accumulation_steps or 1
    rows, kept = [], []
    for step, (x, y) in enumerate(batches()):
        kept.append(_gradients(model, x, y))
        row = [_norm(kept[-1]), np.nan, np.nan]
        if (step + 1) % micro == 0:
            mean = [sum(each) / micro for each in zip(*kept)]
            row[1] = _norm(_clipped(optimizer, mean))
            row[2] = row[1] / _norm(mean)
            kept = []
        rows.append(row)
        model.train_on_batch(x, y)
    return _Expected(*np.transpose(rows))


def _assert_factor(recorder: Recorder, watch: GradWatch, wanted: Any) -> None:
    """Asserts factors and the number of steps at which clipping bound."""
    factor = recorder.column("clip_factor")
    np.testing.assert_allclose(factor, wanted, rtol=2e-3)
    binds = wanted < 1 - 1e-9
    assert (factor[~binds & ~np.isnan(wanted)] == 1).all()
    assert (factor[binds] < 1).all()
    assert watch.state["counters"]["clipped_steps"] == binds.sum()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, GRAPH) for name in MAKES),
        *((name, XLA) for name in COMPILED[1:3]),
        *at_length((name, XLA) for name in (COMPILED[0], *COMPILED[3:])),
    ],
    ids=str,
)
def test_norms_before_and_after(name: str, mode: Mode, tmp_path: Path) -> None:
    """Both norms agree with numpy, which collects and clips by itself."""
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    rows = WHOLE if mode.jit_compile else ROWS
    fit(_model(MAKES[name], mode), watch, rows=rows)
    steps = len(recorder.steps)
    expected = _expected(MAKES[name])
    raw, applied, factors = (column[:steps] for column in expected)
    tolerance = 2e-3 if mode.jit_compile else 5e-4
    got = recorder.column("gradient_norm")
    np.testing.assert_allclose(got, raw, rtol=tolerance)
    told = {slot.signal for slot in recorder.schema.slots}
    assert ("clip_factor" in told) == ("clip" in name)
    if "clip" in name:
        _assert_factor(recorder, watch, factors)
    if "clip" in name or "accumulation" in name:
        after = recorder.column("applied_gradient_norm")
        np.testing.assert_allclose(after, applied, rtol=tolerance)
    updated = ~np.isnan(applied)
    assert (recorder.column("update_applied") == updated).all()
    assert not recorder.column("update_dropped").any()


def test_clipping_in_half_precision(tmp_path: Path) -> None:
    """The factor is that of unscaled gradients, and sometimes 1."""
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    bound = 1.0

    def make() -> Any:
        return SGD(0.1, global_clipnorm=bound)

    with _policy("mixed_float16"):
        model = _model(make, GRAPH)
        expected = _expected(make)
    fit(model, watch)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    norms = recorder.column("gradient_norm")
    np.testing.assert_allclose(norms, expected.raw, rtol=0.02)
    wanted = np.minimum(1, bound / norms)
    assert {True, False} == set(wanted < 1)
    _assert_factor(recorder, watch, wanted)


SLICES = np.array([[3.0, 0.4], [-2.9, 0.4], [0.1, 0.0]], np.float32)
DENSE = np.array([0.3, -0.4], np.float32)  # norm 0.5


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("option", "bound", "size", "binds"),
    [
        ("clipnorm", 0.25, 1.0, True),
        ("clipnorm", 10.0, 1.0, False),
        ("global_clipnorm", 1.0, 1.0, True),
        ("global_clipnorm", 10.0, 1.0, False),
        ("clipvalue", 0.25, 1.0, True),
        ("clipvalue", 10.0, 1.0, False),
        ("clipvalue", 0.25, 1e25, True),
        ("clipvalue", 0.25, 0.0, False),
        ("clipnorm", 0.25, 0.0, False),
        ("clipnorm", -1.0, 1.0, False),
    ],
)
def test_clip_factor_is_that_of_keras(
    option: str, bound: float, size: float, binds: bool, jit: bool
) -> None:
    """Also with rows of the same index, which Keras looks at one by one."""
    optimizer = SGD(1.0, **{option: bound})

    def gradients() -> list[Any]:
        rows = tf.constant(SLICES * np.float32(size))
        slices = tf.IndexedSlices(rows, tf.constant([2, 2, 1]), (4, 2))
        return [slices, tf.constant(DENSE * np.float32(size))]

    @tf.function(jit_compile=jit)
    def measured() -> Any:
        given = gradients()
        found = applied(optimizer, Handed(given, given, None, [], False))
        return {slot.signal: value for slot, value in found.items()}

    def norm(given: Any) -> Any:
        plain = [tf.convert_to_tensor(g).numpy() for g in given]
        return _norm([g.astype(np.float64) for g in plain])

    before = norm(gradients())
    after = norm(optimizer._clip_gradients(gradients()))
    got = {name: float(value) for name, value in measured().items()}
    if bound < 0:
        assert got == {}
        return
    assert got["applied_gradient_norm"] == pytest.approx(after, rel=1e-5)
    wanted = after / before if binds else 1.0
    assert got["clip_factor"] == pytest.approx(wanted, rel=1e-5)
    assert (got["clip_factor"] < 1) == binds


def test_what_the_optimizer_says_of_itself(tmp_path: Path) -> None:
    """Rate, own step and loss scale are those in force in each step."""
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    fit(_model(MAKES["schedule_decay_ema"], GRAPH), watch)
    steps = np.arange(17)
    np.testing.assert_allclose(
        recorder.column("learning_rate"), 0.01 * 0.5 ** (steps / 5), rtol=1e-5
    )
    assert (recorder.column("optimizer_step") == steps).all()
    scaled = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[scaled])
    fit(_model(MAKES["loss_scale"], GRAPH), watch)
    assert (scaled.column("loss_scale") == 1024).all()


@pytest.mark.parametrize("mode", [GRAPH, XLA], ids=str)
def test_loss_scaling_skips_are_counted(mode: Mode, tmp_path: Path) -> None:
    """Updates that loss scaling drops are counted, and are no incident."""

    def make() -> Any:
        return keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=3e38)

    def loss(y: Any, p: Any) -> Any:
        error = keras.losses.sparse_categorical_crossentropy(y, p, True)
        return 100.0 * error

    recorder = Recorder()
    watched, plain = _model(make, mode), _model(make, mode)
    for model in (watched, plain):
        model.compile(make(), loss, **mode._asdict())
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    rows = WHOLE if mode.jit_compile else ROWS
    fit(watched, watch, rows=rows)
    fit(plain, rows=rows)
    told = {finding.rule for finding in watch.findings}
    assert told <= {"diverging_loss"}  # which is so, at this rate
    dropped = recorder.column("update_dropped")
    assert dropped[0] == 1
    skips = int(dropped.sum())
    assert watch.state["counters"]["skipped_steps"] == {
        "nonfinite": 0,
        "loss_scale": skips,
        "held": 0,
    }
    inner = watched.optimizer.inner_optimizer
    assert int(inner.iterations) == len(recorder.steps) - skips
    if not mode.jit_compile:
        assert_same(watched, plain)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("bad", [False, True])
def test_mixed_precision(policy: str, bad: bool, tmp_path: Path) -> None:
    """Half-precision models are watched, and NaN data stop them."""
    keras.utils.set_random_seed(0)
    recorder = Recorder()
    with _policy(policy):
        layers = [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, dtype="float32"),
        ]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
    x, y = data()
    if bad:
        x[5 * BATCH] = np.nan
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    model.fit(
        x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=[watch]
    )
    norms = recorder.column("gradient_norm")
    assert np.isfinite(norms[:5]).all()
    assert 0.01 < norms[0] < 10  # not 32768 times as much
    assert all(np.isfinite(v).all() for v in values(model).values())
    assert [f.first_step for f in watch.findings] == ([5] if bad else [])


# On CPU TensorFlow's fused ReLU turns NaN into 0, so in graph mode the loss
# stays finite and loss scaling drops the update by itself.
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("accumulation", GRAPH),
        ("accumulation", XLA),
        *at_length([("loss_scale", XLA)]),
    ],
    ids=str,
)
def test_a_bad_step_changes_nothing(
    name: str, mode: Mode, tmp_path: Path
) -> None:
    """Neither what is collected nor the loss scale is touched by it."""
    x, y = data()
    x[5 * BATCH + 3] = np.nan
    stopped = _model(MAKES[name], mode)
    options = {"batch_size": BATCH, "verbose": 0, "shuffle": False}
    watch = GradWatch(tmp_path, xray_every_steps=0)
    stopped.fit(x, y, callbacks=[watch], **options)
    reference = _model(MAKES[name], mode)
    half = 5 * BATCH
    reference.fit(
        x[:half],
        y[:half],
        callbacks=[GradWatch(tmp_path, xray_every_steps=0)],
        **options,
    )
    assert_same(stopped, reference)
    assert watch.state["reason"] == "nonfinite"


class _policy:
    """Keras' global dtype policy within a block."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self._name)

    def __exit__(self, *_: Any) -> None:
        keras.config.set_dtype_policy(self._before)
