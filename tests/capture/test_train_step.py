"""Custom train steps: what tapes gave, what optimizers got, each by name."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

from gradwatch import GradWatch, UnsupportedError
from tests.capture.test_fit import Recorder
from tests.models import (
    GRAPH,
    MODES,
    SOME,
    Mode,
    assert_same,
    at_length,
    mostly,
    values,
)

ROWS, BATCH = 96, 32
CLIP = 0.1


def _data() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    return x, x[:, :1] - 2 * x[:, 1:2]


class _Net(keras.Model):
    """A small regression whose `train_step` a test chooses."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.hidden = keras.layers.Dense(6, "tanh", name="hidden")
        self.out = keras.layers.Dense(1, name="out")

    def call(self, inputs: Any) -> Any:
        return self.out(self.hidden(inputs))

    def error(self, data: Any) -> Any:
        """Mean squared error of a batch."""
        x, y = data
        return tf.reduce_mean((self(x, training=True) - y) ** 2)


class Clips(_Net):
    """Clips between tape and optimizer."""

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self.error(data)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        clipped, _ = tf.clip_by_global_norm(gradients, CLIP)
        self.optimizer.apply_gradients(zip(clipped, weights))
        return {"loss": loss}


class Persistent(_Net):
    """Two losses of one persistent tape, added by hand."""

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            loss = self.error(data)
            size = tf.reduce_mean(self(data[0]) ** 2)
        weights = self.trainable_variables
        first = tape.gradient(loss, weights)
        second = tape.gradient(size, weights)
        both = [a + b for a, b in zip(first, second)]
        self.optimizer.apply(both, weights)
        return {"loss": loss}


class Penalty(_Net):
    """A gradient penalty: the inner tape is about inputs and weights."""

    def train_step(self, data: Any) -> Any:
        x, _ = data
        with tf.GradientTape() as tape:
            with tf.GradientTape(persistent=True) as inner:
                inner.watch(x)
                loss = self.error(data)
            slope = inner.gradient(loss, x)
            sharp = inner.gradient(loss, [self.out.kernel])[0]
            loss += tf.reduce_sum(slope**2) + tf.reduce_sum(sharp**2)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class Assigns(_Net):
    """Changes its weights without an optimizer."""

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self.error(data)
        weights = self.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights)):
            weight.assign(weight - 0.1 * gradient)
        return {"loss": loss}


class Decorated(_Net):
    """A `tf.function`, as some write it."""

    @tf.function
    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self.error(data)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class Two(_Net):
    """An optimizer for each layer; the first is applied twice a step."""

    def compile(self, **options: Any) -> None:
        super().compile(optimizer="sgd", **options)
        self.first_optimizer = keras.optimizers.Adam(0.01)
        self.second_optimizer = keras.optimizers.SGD(0.1, clipnorm=CLIP)

    def train_step(self, data: Any) -> Any:
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = self.error(data)
            weights = self.hidden.trainable_variables
            self.first_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            # Bad where the batch's mark says so, for the last update only.
            last = tf.math.log(data[1][0, 0] + 100.0) ** 2 * self.error(data)
        weights = self.out.trainable_variables
        self.second_optimizer.apply(tape.gradient(last, weights), weights)
        return {"loss": loss, "last": last}


STEPS = (Clips, Persistent, Penalty, Assigns, Decorated, Two)


def _model(kind: type[Any], mode: Mode = MODES[0]) -> Any:
    keras.utils.set_random_seed(5)
    model = kind()
    options: dict[str, Any] = mode._asdict()
    if kind is not Two:
        options["optimizer"] = "adam"
    model.compile(**options)
    return model


def _fit(model: Any, *callbacks: Any, y: Any = None) -> Any:
    x, own = _data()
    return model.fit(
        x,
        own if y is None else y,
        batch_size=BATCH,
        verbose=0,
        shuffle=False,
        callbacks=[*callbacks],
    )


def _values(model: Any) -> dict[str, Any]:
    found = values(model)
    if isinstance(model, Two):
        for optimizer in (model.first_optimizer, model.second_optimizer):
            for i, v in enumerate(optimizer.variables):
                found[f"{optimizer.name} {i} {v.path}"] = v.numpy()
    return found


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *mostly((Clips, mode) for mode in MODES),
        *mostly((Two, mode) for mode in (MODES[1], *SOME)),
        *((kind, GRAPH) for kind in STEPS[1:5]),
        *at_length((kind, MODES[3]) for kind in STEPS[1:5]),
    ],
    ids=str,
)
def test_watching_changes_nothing(
    kind: type[Any], mode: Mode, tmp_path: Path
) -> None:
    """Weights and optimizers are those of an unwatched fit."""
    plain, watched = _model(kind, mode), _model(kind, mode)
    _fit(plain)
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    _fit(watched, watch)
    assert watch.findings == []
    assert recorder.steps == [0, 1, 2]
    exact = {"rtol": 0} if not mode.jit_compile else {"rtol": 1e-4}
    pairs = zip(_values(watched).items(), _values(plain).values(), strict=True)
    for (path, ours), theirs in pairs:
        np.testing.assert_allclose(
            ours, theirs, err_msg=path, atol=1e-6 * mode.jit_compile, **exact
        )


def _true_gradients(model: Any, kind: type[Any]) -> list[Any]:
    """The gradients of the first batch, with one plain tape."""
    x, y = (tf.constant(a[:BATCH]) for a in _data())
    with tf.GradientTape() as tape:
        loss = model.error((x, y))
        if kind is Persistent:
            loss += tf.reduce_mean(model(x) ** 2)
        if kind is Penalty:
            with tf.GradientTape(persistent=True) as inner:
                inner.watch(x)
                again = model.error((x, y))
            loss += tf.reduce_sum(inner.gradient(again, x) ** 2)
            kernel = model.out.kernel.value
            loss += tf.reduce_sum(inner.gradient(again, kernel) ** 2)
    weights = [v.value for v in model.trainable_variables]
    return [g.numpy() for g in tape.gradient(loss, weights)]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, mode) for kind in STEPS[:-1] for mode in MODES[::4]),
        (Penalty, MODES[2]),
        *at_length((kind, MODES[2]) for kind in (Clips, Decorated)),
    ],
    ids=str,
)
def test_norms_are_those_of_the_tape(
    kind: type[Any], mode: Mode, tmp_path: Path
) -> None:
    """Each norm is that of one plain tape; clipping stands beside it."""
    model = _model(kind, mode)
    model(_data()[0][:1])
    each = [np.linalg.norm(g) for g in _true_gradients(model, kind)]
    paths = [v.path for v in model.trainable_variables]
    recorder = Recorder()
    _fit(model, GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder]))
    for path, norm in zip(paths, each, strict=True):
        got = recorder.column("variable_gradient_norm", path)[0]
        assert got == pytest.approx(norm, rel=1e-3)
    whole = np.linalg.norm(each)
    got = recorder.column("gradient_norm")[0]
    assert got == pytest.approx(whole, rel=1e-3)
    signals = {slot.signal for slot in recorder.schema.slots}
    assert ("applied_gradient_norm" in signals) == (kind in (Clips, Persistent))
    if kind is Clips:
        applied = recorder.column("applied_gradient_norm")
        np.testing.assert_allclose(applied, CLIP, rtol=1e-4)


def test_several_optimizers_each_by_name(tmp_path: Path) -> None:
    """Losses, norms and rates are told for each; the losses add up."""
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    history = _fit(_model(Two), watch).history
    column = recorder.column
    assert column("optimizer_learning_rate", "first_optimizer")[0] == (
        pytest.approx(0.01)
    )
    assert column("optimizer_learning_rate", "second_optimizer")[0] == (
        pytest.approx(0.1)
    )
    first = column("loss_component", "first_optimizer")
    second = column("loss_component", "second_optimizer")
    np.testing.assert_allclose(column("loss"), first + second, rtol=1e-6)
    # Keras shows what the step returned last.
    assert second[-1] == pytest.approx(history["last"][0], rel=1e-6)
    out = column("variable_gradient_norm", "net/out/kernel")
    bias = column("variable_gradient_norm", "net/out/bias")
    norm = column("optimizer_gradient_norm", "second_optimizer")
    np.testing.assert_allclose(norm, np.hypot(out, bias), rtol=1e-5)
    applied = column("optimizer_applied_gradient_norm", "second_optimizer")
    assert (applied <= CLIP * 2**0.5 + 1e-6).all()
    factor = column("optimizer_clip_factor", "second_optimizer")
    np.testing.assert_allclose(factor, applied / norm, rtol=1e-5)
    assert "clip_factor" not in {slot.signal for slot in recorder.schema.slots}
    clipped = watch.state["counters"]["clipped_steps"]
    assert clipped == (factor < 1).sum() > 0
    hidden = column("optimizer_gradient_norm", "first_optimizer")
    whole = column("gradient_norm")
    np.testing.assert_allclose(whole, np.hypot(hidden, norm), rtol=1e-2)
    assert (column("optimizer_step") == [0, 2, 4]).all()


class Ordered(Clips):
    """Returns its logs as a dictionary of its own kind."""

    def train_step(self, data: Any) -> Any:
        return OrderedDict(super().train_step(data))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *mostly((Clips, mode) for mode in (MODES[1], *SOME)),
        *((Ordered, mode) for mode in SOME),
    ],
    ids=str,
)
def test_callbacks_see_what_the_step_returns(
    kind: type[Any], mode: Mode, tmp_path: Path
) -> None:
    """What the execution returns besides is in no log."""
    seen: list[dict[str, float]] = []
    listens = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs)
    )
    _fit(_model(kind, mode), GradWatch(tmp_path), listens)
    _fit(_model(kind, mode), listens)
    half = len(seen) // 2
    assert half
    assert [set(logs) for logs in seen] == [{"loss"}] * len(seen)
    ours, theirs = (
        [logs["loss"] for logs in part] for part in (seen[:half], seen[half:])
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("mode", mostly(MODES[::2]), ids=str)
@pytest.mark.parametrize("kind", [Clips, Assigns, Two])
def test_a_bad_step_changes_nothing(
    kind: type[Any], mode: Mode, tmp_path: Path
) -> None:
    """Also what an earlier update of the same step has changed goes back."""
    x, y = _data()
    y[BATCH] = -100.0 if kind is Two else np.nan  # log(0) in the last update
    stopped, reference = _model(kind, mode), _model(kind, mode)
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _fit(stopped, watch, y=y)
    reference.fit(
        x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0, shuffle=False
    )
    ours, theirs = _values(stopped), _values(reference)
    for (path, a), b in zip(ours.items(), theirs.values(), strict=True):
        if "mean" not in path and "total" not in path:
            np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=path)
    (finding,) = watch.findings
    assert finding.first_step == 1
    assert finding.severity == "critical"


def test_a_traced_train_step_is_watched(tmp_path: Path) -> None:
    """One that was a `tf.function` and ran before is seen all the same."""
    model = _model(Decorated)
    x, y = (tf.constant(a[:BATCH]) for a in _data())
    model(x)
    model.optimizer.build(model.trainable_variables)
    model.train_step((x, y))
    recorder = Recorder()
    _fit(model, GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder]))
    assert recorder.steps == [0, 1, 2]


def test_a_compiled_train_step_is_refused(tmp_path: Path) -> None:
    """What a decorator compiles is not silently run in another way."""

    class Compiled(_Net):
        @tf.function(jit_compile=True)
        def train_step(self, data: Any) -> Any:
            return {}

    with pytest.raises(UnsupportedError, match="jit_compile=True"):
        _fit(_model(Compiled), GradWatch(tmp_path, xray_every_steps=0))
    assert list(tmp_path.iterdir()) == []


def test_classes_are_as_before(tmp_path: Path) -> None:
    """Tapes and optimizers are hooked during a trace only, for it only."""
    originals = tf.GradientTape.gradient, BaseOptimizer.apply
    seen: list[Any] = []
    outside = tf.Variable(3.0)

    class Looks(Clips):
        def train_step(self, data: Any) -> Any:
            def other() -> None:
                with tf.GradientTape() as tape:
                    value = outside * outside
                seen.append(tape.gradient(value, outside).numpy())

            seen.append(tf.GradientTape.gradient)
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return super().train_step(data)

    model = _model(Looks)
    recorder = Recorder()
    _fit(model, GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder]))
    assert seen[0] is not originals[0]
    assert seen[1] == 6.0
    assert (tf.GradientTape.gradient, BaseOptimizer.apply) == originals
    assert "train_step" not in vars(model)
    assert len(recorder.schema.columns("variable_gradient_norm")) == 4


def test_a_step_in_an_inner_function_is_said_not_to_be_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on; log and finding say that nothing is seen, and why."""

    class Inner(_Net):
        def train_step(self, data: Any) -> Any:
            return {"loss": self.inside(data)}

        @tf.function
        def inside(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = self.error(data)
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return loss

    plain, watched = _model(Inner), _model(Inner)
    for model in (plain, watched):
        model(_data()[0][:1])
        model.optimizer.build(model.trainable_variables)
    _fit(plain)
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _fit(watched, watch)
    assert_same(watched, plain)
    assert "inside of a `tf.function`" in caplog.text
    assert [f.rule for f in watch.findings] == ["no_readings"]
