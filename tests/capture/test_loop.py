"""Loops of the user's own, and `train_on_batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch, NonFiniteError, component
from tests.capture.test_fit import Recorder
from tests.models import BATCH, assert_same, batches, classifier, data

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
KINDS = ("eager", "function", "xla", "bounded")


def _model() -> Any:
    """Without `compile`, as in most loops of one's own."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((8,)),
        keras.layers.Dense(16, activation="relu", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(3, name="classes"),
    ]
    return keras.Sequential(layers, name="net")


def _step(model: Any, optimizer: Any, kind: str, watch: Any = None) -> Any:
    """Returns a train step of this kind; all do the same."""

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = component("entropy", LOSS(y, model(x, training=True)))
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return loss

    def bounded(x: Any, y: Any) -> Any:
        with watch.step():
            return step(x, y)

    if kind == "eager":
        return step
    if kind == "bounded":
        return tf.function(bounded if watch else step)
    return tf.function(step, jit_compile=kind == "xla")


def _tensors() -> list[Any]:
    return [(tf.constant(x), tf.constant(y)) for x, y in batches(512)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_is_watched_and_not_changed(kind: str, tmp_path: Path) -> None:
    """Each step's own loss and norm; two blocks are one run."""
    plain = _model(), keras.optimizers.Adam()
    step = _step(*plain, kind)
    losses = [step(x, y).numpy() for x, y in _tensors() * 2]

    model, optimizer = _model(), keras.optimizers.Adam()
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder])
    step = _step(model, optimizer, kind, watch)
    got = []
    for _ in range(2):
        with watch.watching(model):
            got += [step(x, y).numpy() for x, y in _tensors()]
    tolerance = 1e-4 if kind == "xla" else 0
    np.testing.assert_allclose(got, losses, rtol=tolerance)
    if kind != "xla":
        assert_same_loops(model, optimizer, *plain)
    assert watch.findings == []
    assert recorder.steps == list(range(32))
    np.testing.assert_allclose(recorder.column("loss"), got, rtol=1e-5)
    part = recorder.column("loss_component", "entropy")
    np.testing.assert_allclose(part, got, rtol=1e-5)
    assert (recorder.column("optimizer_step") == np.arange(32)).all()
    model = _model()
    (x, y), *_ = _tensors()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    norm = tf.linalg.global_norm(gradients).numpy()
    first = recorder.column("gradient_norm")[0]
    assert first == pytest.approx(norm, rel=1e-4)


def assert_same_loops(a: Any, a_rule: Any, b: Any, b_rule: Any) -> None:
    """Asserts bitwise equal weights and optimizers."""
    ours = [*a.variables, *a_rule.variables]
    theirs = [*b.variables, *b_rule.variables]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_step_is_kept_out(kind: str, tmp_path: Path) -> None:
    """Nothing changes any more, the loop is asked to stop, the run failed."""
    model, optimizer = _model(), keras.optimizers.Adam()
    watch = GradWatch(tmp_path)
    step = _step(model, optimizer, kind, watch)
    tensors = _tensors()[:6]
    bad = tensors[3][0].numpy()
    bad[2, 2] = np.nan
    tensors[3] = tf.constant(bad), tensors[3][1]
    with watch.watching(model):
        for number, (x, y) in enumerate(tensors):
            if number == 3:
                before = [v.numpy() for v in model.trainable_variables]
                rule = [v.numpy() for v in optimizer.variables]
                state = [v.numpy() for v in model.non_trainable_variables]
            step(x, y)
    for then, now in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(now, then)
    for then, now in zip(rule, optimizer.variables, strict=True):
        np.testing.assert_array_equal(now, then)
    if kind in ("eager", "bounded"):  # where the step's beginning is known
        for then, now in zip(state, model.non_trainable_variables, strict=True):
            np.testing.assert_array_equal(now, then)
    assert model.stop_training
    assert [f.first_step for f in watch.findings] == [3]
    assert watch.state["phase"] == "failed"


def test_raise_leaves_the_loop(tmp_path: Path) -> None:
    """With `"raise"` the bad step itself raises in an eager loop."""
    model, optimizer = _model(), keras.optimizers.Adam()
    watch = GradWatch(tmp_path, on_nonfinite="raise")
    step = _step(model, optimizer, "eager")
    (x, y), *_ = _tensors()
    seen = 0

    def loop() -> None:
        nonlocal seen
        with watch.watching(model):
            for scale in (1.0, np.nan, 1.0):
                step(x * scale, y)
                seen += 1

    with pytest.raises(NonFiniteError) as caught:
        loop()
    assert (seen, caught.value.step) == (1, 1)


def test_train_on_batch(tmp_path: Path) -> None:
    """Each call is a step; nothing changes; afterwards all is as before."""
    plain, watched = classifier(), classifier()
    for x, y in batches():
        plain.train_on_batch(x, y)
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder], xray_every_steps=4)
    with watch.watching(watched):
        for x, y in batches():
            watched.train_on_batch(x, y)
    assert_same(watched, plain)
    assert recorder.steps == list(range(17))
    assert watch.state["phase"] == "finished"
    watched.fit(*data(), batch_size=BATCH, verbose=0)
    assert recorder.steps == list(range(17))


@pytest.mark.parametrize("function", [False, True])
def test_two_optimizers_in_a_bounded_step(
    function: bool, tmp_path: Path
) -> None:
    """`watch.step()` makes one reading of both, each by its name."""
    model = _model()
    rules = (
        keras.optimizers.Adam(name="below"),
        keras.optimizers.SGD(name="top"),
    )
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder])

    def step(x: Any, y: Any) -> None:
        with watch.step():
            with tf.GradientTape(persistent=True) as tape:
                loss = LOSS(y, model(x, training=True))
            every = model.trainable_variables
            for rule, weights in zip(rules, (every[:4], every[4:])):
                rule.apply(tape.gradient(loss, weights), weights)

    run = tf.function(step) if function else step
    with watch.watching(model):
        for x, y in _tensors()[:5]:
            run(x, y)
    assert recorder.steps == list(range(5))
    names = recorder.schema.columns("optimizer_gradient_norm")
    assert list(names) == ["below", "top"]
    assert watch.findings == []


def test_a_function_traced_before_is_not_seen(tmp_path: Path) -> None:
    """It runs as before; that nothing is measured is told."""
    model, optimizer = _model(), keras.optimizers.Adam()
    step = _step(model, optimizer, "function")
    (x, y), *_ = _tensors()
    step(x, y)
    before = values_of(model)
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder])
    with watch.watching(model):
        step(x, y)
    assert recorder.steps == []
    assert any((a != b).any() for a, b in zip(before, values_of(model)))
    assert [f.rule for f in watch.findings] == ["no_readings"]


def values_of(model: Any) -> list[Any]:
    """All values of a model that was not compiled."""
    return [v.numpy() for v in model.variables]
