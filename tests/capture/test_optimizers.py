"""What optimizers do with gradients: scale, collect, clip, skip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch
from tests.capture.test_fit import Recorder
from tests.models import (
    BATCH,
    Mode,
    assert_same,
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


@pytest.mark.parametrize("mode", [GRAPH, XLA], ids=str)
@pytest.mark.parametrize("name", MAKES)
def test_norms_before_and_after(name: str, mode: Mode, tmp_path: Path) -> None:
    """Both norms agree with numpy, which collects and clips by itself."""
    recorder = Recorder()
    fit(
        _model(MAKES[name], mode),
        GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder]),
    )
    model = _model(MAKES[name], Mode(run_eagerly=True))
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    micro = optimizer.gradient_accumulation_steps or 1
    raw, applied, kept = [], [], []
    for step, (x, y) in enumerate(batches()):
        gradients = _gradients(model, x, y)
        raw.append(_norm(gradients))
        kept.append(gradients)
        due = (step + 1) % micro == 0
        mean = [sum(each) / micro for each in zip(*kept)] if due else []
        applied.append(_norm(_clipped(optimizer, mean)) if due else np.nan)
        kept = [] if due else kept
        model.train_on_batch(x, y)
    tolerance = 2e-3 if mode.jit_compile else 5e-4
    got = recorder.column("gradient_norm")
    np.testing.assert_allclose(got, raw, rtol=tolerance)
    clips = any(
        (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
    )
    if micro > 1 or clips:
        after = recorder.column("applied_gradient_norm")
        np.testing.assert_allclose(after, applied, rtol=tolerance)
    updated = ~np.isnan(applied)
    assert (recorder.column("update_applied") == updated).all()
    assert not recorder.column("update_dropped").any()


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
    fit(watched, watch)
    fit(plain)
    assert watch.findings == []
    dropped = recorder.column("update_dropped")
    assert dropped[0] == 1
    skips = int(dropped.sum())
    assert watch.state["counters"]["skipped_steps"] == {
        "nonfinite": 0,
        "loss_scale": skips,
    }
    inner = watched.optimizer.inner_optimizer
    assert int(inner.iterations) == 17 - skips
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
    [("accumulation", GRAPH), ("accumulation", XLA), ("loss_scale", XLA)],
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
