"""A bad step changes nothing, in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwatch import GradWatch, NonFiniteError
from gradwatch.capture.install import Capture
from gradwatch.capture.ring import Ring
from tests.capture.test_fit import Recorder
from tests.models import (
    BATCH,
    GRAPH,
    MODES,
    ROWS,
    SOME,
    WHOLE,
    Mode,
    assert_same,
    classifier,
    data,
    mostly,
    values,
)

BAD = 5


def _hurt(what: str = "inputs", rows: int = ROWS) -> tuple[Any, Any]:
    """Data whose batch number `BAD` holds a single NaN."""
    x, y = data(rows)
    if what == "targets":
        y = y.astype(np.float32)
    hurt = x if what == "inputs" else y
    hurt[BAD * BATCH + 3] = np.nan
    return x, y


def _train(model: Any, watch: GradWatch, x: Any, y: Any, **options: Any) -> Any:
    kept = {"epochs": 1, "verbose": 0, "shuffle": False, **options}
    return model.fit(x, y, batch_size=BATCH, callbacks=[watch], **kept)


@pytest.mark.parametrize(
    ("mode", "built"),
    mostly(
        [
            *((mode, True) for mode in MODES),
            (MODES[1], False),
            (MODES[4], False),
        ]
    ),
    ids=lambda of: {True: "built", False: "lazy"}.get(of, str(of)),
)
def test_everything_is_as_before_the_bad_step(
    mode: Mode, built: bool, tmp_path: Path
) -> None:
    """Weights, statistics, seeds, optimizer and metrics are those before."""
    x, y = _hurt()
    stopped = classifier(mode, built=built)
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    history = _train(stopped, watch, x, y, epochs=2).history
    reference = classifier(mode, built=built)
    _train(
        reference,
        GradWatch(tmp_path, xray_every_steps=0),
        x[: BAD * BATCH],
        y[: BAD * BATCH],
    )
    assert_same(stopped, reference)
    assert all(np.isfinite(v).all() for v in values(stopped).values())
    assert all(np.isfinite(v).all() for v in history.values())
    (finding,) = watch.findings
    assert finding.first_step == BAD
    assert finding.rule == "nonfinite_batch"
    assert finding.causes == ("data",)
    assert len(history["loss"]) == 1
    applied = recorder.column("update_applied")
    assert applied[:BAD].all()
    assert not applied[BAD:].any()
    last = mode.steps_per_execution if mode.steps_per_execution > 1 else BAD + 1
    assert recorder.steps == list(range(min(last, 17)))


def test_the_very_first_step_of_a_lazy_model(tmp_path: Path) -> None:
    """State that the first batch builds is put back to its initial value."""
    x, y = data()
    x[0] = np.nan
    model = classifier(built=False)
    _train(model, GradWatch(tmp_path, xray_every_steps=0), x, y)
    norm = model.get_layer("norm")
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(16))
    np.testing.assert_array_equal(norm.moving_variance, np.ones(16))
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("mode", mostly(MODES[::2]), ids=str)
def test_weights_assigned_in_the_forward_pass(
    mode: Mode, trainable: bool, tmp_path: Path
) -> None:
    """A layer that overwrites its own weight has it put back as well."""

    class Follows(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.k = self.add_weight(shape=(8,), name="k", initializer="ones")
            self.k.trainable = trainable

        def call(self, inputs: Any) -> Any:
            mean = keras.ops.mean(inputs, axis=0)
            self.k.assign(0.9 * self.k + 0.1 * mean)
            return inputs * self.k

    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), Follows(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **mode._asdict())
    x, y = _hurt()
    _train(model, GradWatch(tmp_path, xray_every_steps=0), x, y)
    assert all(np.isfinite(v).all() for v in values(model).values())


def test_an_optimizer_cannot_square_what_overflows(tmp_path: Path) -> None:
    """Gradients of 1e25 destroy neither Adam's state nor a clipped update."""
    for optimizer in (
        keras.optimizers.Adam(),
        keras.optimizers.SGD(global_clipnorm=1.0),
    ):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(optimizer, lambda y, p: keras.ops.mean(p) * 1e25)
        watch = GradWatch(tmp_path, xray_every_steps=0)
        x = np.ones((4, 1), np.float32)
        model.fit(x, x, verbose=0, callbacks=[watch])
        (finding,) = watch.findings
        assert finding.rule == "nonfinite_gradient"
        assert finding.causes == ("overflow",)
        assert "grew to" in finding.message
        assert all(np.isfinite(v).all() for v in values(model).values())


def test_weights_lost_by_an_earlier_update_are_said_to_be_lost(
    tmp_path: Path,
) -> None:
    """A learning rate that overflows the weights is told as what it is."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e38), "mse")
    watch = GradWatch(tmp_path, xray_every_steps=0)
    x = np.full((4, 1), 30.0, np.float32)
    model.fit(x, 9 * x, epochs=3, verbose=0, callbacks=[watch])
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_weight", 1)
    assert "the weights are lost" in finding.message


@pytest.mark.parametrize("mode", SOME, ids=str)
def test_a_mask_of_minus_infinity_is_healthy(
    mode: Mode, tmp_path: Path
) -> None:
    """State that is infinite on purpose, assigned or not, stops nothing."""

    class Lowest(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            low = keras.initializers.Constant(np.inf)
            self.mask = self.add_weight(
                shape=(8,), initializer=low, trainable=False, name="mask"
            )
            self.low = self.add_weight(
                shape=(8,), initializer=low, trainable=False, name="low"
            )

        def call(self, inputs: Any) -> Any:
            least = keras.ops.min(inputs, axis=0)
            some = keras.ops.where(keras.ops.arange(8) < 4, least, np.inf)
            self.low.assign(keras.ops.minimum(self.low, some))
            return inputs

    x, _ = data(WHOLE)
    layers = [keras.Input((8,)), Lowest(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", **mode._asdict())
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _train(model, watch, x, x[:, :1])
    assert watch.findings == []
    assert watch.state["steps"] == WHOLE // BATCH


def test_a_bad_first_step_of_an_epoch_is_no_best_loss(tmp_path: Path) -> None:
    """An epoch in which nothing was counted has no loss of 0 to save."""
    x, y = data()
    model = classifier()
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _train(model, watch, x, y)
    x[0] = np.nan
    loss = _train(model, watch, x, y).history["loss"]
    assert np.isnan(loss).all() or loss[0] > 0.1
    assert all(np.isfinite(v.numpy()).all() for v in model.variables)


@pytest.mark.parametrize("policy", ["stop", "raise"])
def test_a_latch_that_is_seen_late(
    policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that is looked at seldom, the end of an epoch looks."""
    monkeypatch.setattr("gradwatch.capture.install._SYNC_SECONDS", 1e9)
    original = Ring.__init__

    def seldom(self: Ring, *args: Any) -> None:
        original(self, *args)
        self.on_cpu = False

    monkeypatch.setattr(Ring, "__init__", seldom)
    x, y = _hurt(rows=WHOLE)
    model = classifier(MODES[2])  # graph mode would ring
    watch = GradWatch(tmp_path, xray_every_steps=0, on_nonfinite=policy)
    if policy == "raise":
        with pytest.raises(NonFiniteError, match=f"Step {BAD} "):
            _train(model, watch, x, y, epochs=3)
    else:
        assert len(_train(model, watch, x, y, epochs=3).history["loss"]) == 1
    assert (watch.state["phase"], watch.state["reason"]) == (
        "failed",
        "nonfinite",
    )
    assert int(model.optimizer.iterations) == BAD
    assert not hasattr(model.train_function, "arm")


@pytest.mark.parametrize("policy", ["stop", "record"])
def test_a_bad_step_rings(
    policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters are not looked at each time, and a bad step is seen at once."""
    monkeypatch.setattr("gradwatch.capture.install._SYNC_SECONDS", 1e9)
    looks: list[int] = []
    look = Capture.look

    def counted(self: Capture, now: float) -> None:
        looks.append(self._next)
        look(self, now)

    x, y = _hurt()
    recorder = Recorder()
    watch = GradWatch(
        tmp_path, xray_every_steps=0, on_nonfinite=policy, sinks=[recorder]
    )
    monkeypatch.setattr(Capture, "look", counted)
    _train(classifier(), watch, x, y)
    batches = BAD + 1 if policy == "stop" else 17
    # After the trace, when it rings, at the end of the epoch and of the fit.
    assert sorted({*looks}) == sorted({1, BAD + 1, batches})
    steps = np.concatenate([block.steps for block in recorder.blocks])
    assert steps.tolist() == list(range(batches))
    assert watch.findings[0].first_step == BAD


@pytest.mark.parametrize("jit", [False, True])
def test_state_alone_can_be_bad(tmp_path: Path, jit: bool) -> None:
    """A counter that overflows stops the run, and is put back."""

    class Grows(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.total = self.add_weight(
                shape=(), initializer="ones", trainable=False, name="total"
            )

        def call(self, inputs: Any) -> Any:
            self.total.assign(self.total * 1e20)
            return inputs

    x, y = data()
    layers = [keras.Input((8,)), Grows(name="grows"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="net")
    model.compile("sgd", "mse", jit_compile=jit)
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _train(model, watch, x, y)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_weight", 1)
    assert finding.subject == "net/grows/total"
    assert float(model.layers[0].total) == pytest.approx(1e20)


def test_a_metric_that_is_nan_is_no_bad_step(tmp_path: Path) -> None:
    """What a user's metric yields is the user's; training goes on."""
    model = classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=[lambda y, p: p[:, 0] / 0.0 * 0.0])
    watch = GradWatch(tmp_path, xray_every_steps=0)
    x, y = data()
    _train(model, watch, x, y)
    assert watch.findings == []
    assert int(model.optimizer.iterations) == 17


@pytest.mark.parametrize("mode", mostly([GRAPH, MODES[1], MODES[3]]), ids=str)
def test_raise_carries_the_finding(mode: Mode, tmp_path: Path) -> None:
    """`on_nonfinite="raise"` leaves `fit` with step and finding."""
    x, y = _hurt()
    model = classifier(mode)
    watch = GradWatch(tmp_path, xray_every_steps=0, on_nonfinite="raise")
    with pytest.raises(NonFiniteError, match=f"Step {BAD} ") as caught:
        _train(model, watch, x, y)
    assert caught.value.step == BAD
    assert caught.value.finding == watch.findings[0]
    assert all(np.isfinite(v).all() for v in values(model).values())
    assert not hasattr(model.train_function, "arm")
    assert watch.state["reason"] == "nonfinite"


def test_raise_without_rules_still_raises(tmp_path: Path) -> None:
    """The guard works without any rule; the error then has no finding."""
    x, y = _hurt()
    watch = GradWatch(
        tmp_path, xray_every_steps=0, on_nonfinite="raise", rules=[]
    )
    with pytest.raises(NonFiniteError) as caught:
        _train(classifier(), watch, x, y)
    assert caught.value.finding is None


@pytest.mark.parametrize("mode", mostly([MODES[1], *SOME]), ids=str)
def test_record_only_looks(mode: Mode, tmp_path: Path) -> None:
    """Under `record` the run goes on as in plain Keras; one finding tells."""
    x, y = _hurt(rows=WHOLE if mode.jit_compile else ROWS)
    watched, plain = classifier(mode), classifier(mode)
    watch = GradWatch(tmp_path, xray_every_steps=0, on_nonfinite="record")
    _train(watched, watch, x, y)
    plain.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False)
    (finding,) = watch.findings
    assert finding.first_step == BAD
    assert "the weights are lost" in finding.message
    assert watch.state["phase"] == "finished"
    if not mode.jit_compile:
        assert_same(watched, plain)


def test_a_stopped_run_can_go_on(tmp_path: Path) -> None:
    """After the data are mended the same object trains on, from there."""
    x, y = _hurt()
    model = classifier()
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _train(model, watch, x, y)
    before = values(model)
    x, y = data()
    _train(model, watch, x, y)
    assert int(model.optimizer.iterations) == BAD + 17
    assert any(
        (a != b).any() for a, b in zip(before.values(), values(model).values())
    )
    assert len(watch.findings) == 1
    assert watch.state["phase"] == "finished"


def test_nan_targets_are_data(tmp_path: Path) -> None:
    """NaN among the targets is told as a fault of the data."""
    x, y = _hurt("targets")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _train(model, watch, x, y)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_batch", BAD)
    assert finding.subject == "targets"


@pytest.mark.parametrize("jit", [False, True])
def test_a_gradient_alone_can_be_bad(tmp_path: Path, jit: bool) -> None:
    """A finite loss with an infinite derivative stops at that very step."""

    def root(y: Any, p: Any) -> Any:
        return keras.ops.sqrt(keras.ops.abs(y - p))

    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")],
        name="net",
    )
    model.compile(keras.optimizers.SGD(0.0), root, jit_compile=jit)
    x = np.ones((6, 1), np.float32)
    y = np.array([[2], [2], [2], [1], [2], [2]], np.float32)  # exact at 3
    before = [w.numpy() for w in model.weights]
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(x, y, batch_size=1, verbose=0, shuffle=False, callbacks=[watch])
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_gradient", 3)
    assert finding.subject == "net/dense/kernel" or finding.subject.startswith(
        "net/dense"
    )
    assert finding.evidence["loss"] == 0
    assert not finding.evidence["nonfinite_batch"]
    for now, then in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(now, then)
