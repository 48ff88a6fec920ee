"""What a watched fit measures and what it leaves behind, in every mode."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from gradwatch import GradWatch
from gradwatch.records import Block, Record, Run, Schema
from gradwatch.signals import Slot
from tests.models import (
    BATCH,
    GRAPH,
    MODES,
    ROWS,
    SOME,
    WHOLE,
    Mode,
    assert_same,
    batches,
    classifier,
    data,
    fit,
    mostly,
    values,
)


class Recorder:
    """A sink that keeps all readings."""

    name = "recorder"

    def __init__(self) -> None:
        self.schema = Schema()
        self.blocks: list[Block] = []

    def open(self, run: Run, schema: Schema) -> None:
        """Keeps the newest schema."""
        self.schema = schema

    def write(self, record: Record) -> None:
        """Keeps Blocks."""
        if isinstance(record, Block) and len(record):
            self.blocks.append(record)

    def close(self) -> None:
        """Nothing to do."""

    @property
    def steps(self) -> list[int]:
        """Numbers of all steps, in the order in which they came."""
        return [int(s) for b in self.blocks for s in b.steps]

    def column(self, signal: str, subject: str = "") -> Any:
        """All values of a slot, `[steps]`."""
        place = self.schema.slots.index(Slot(signal, subject))
        return np.concatenate([b.values[:, place] for b in self.blocks])


_fit = functools.partial(fit, epochs=2)


@pytest.mark.parametrize(
    ("mode", "built"),
    mostly(
        [*((mode, True) for mode in MODES), *((mode, False) for mode in SOME)]
    ),
    ids=lambda of: {True: "built", False: "lazy"}.get(of, str(of)),
)
def test_watching_changes_nothing(
    mode: Mode, built: bool, tmp_path: Path
) -> None:
    """Weights, optimizer, seeds, metrics and history are those of plain fit."""
    partial = not mode.jit_compile or (mode == MODES[3] and built)
    rows = ROWS if partial else WHOLE
    plain = classifier(mode, built=built)
    expected = _fit(plain, rows=rows).history
    watched = classifier(mode, built=built)
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    got = _fit(watched, watch, rows=rows).history
    assert watch.findings == []
    assert recorder.steps == list(range(34 if partial else 32))
    if not mode.jit_compile:
        assert got == expected
        assert_same(watched, plain)
        return
    # XLA fuses other operations together when more of them are used.
    pairs = zip(values(watched).items(), values(plain).values(), strict=True)
    for (path, ours), theirs in pairs:
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5, atol=1e-7, err_msg=path
        )


@pytest.mark.parametrize("mode", mostly(MODES), ids=str)
def test_readings_are_those_of_an_own_loop(mode: Mode, tmp_path: Path) -> None:
    """Loss and norms of each step agree with a loop that uses no gradwatch."""
    recorder = Recorder()
    watched = classifier(mode, drop=0)
    rows = WHOLE if mode.jit_compile else ROWS
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    fit(watched, watch, rows=rows)
    model = classifier(drop=0)
    losses, norms, kernels = [], [], []
    for x, y in batches(rows):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), None)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        each = [np.linalg.norm(g.numpy().astype(np.float64)) for g in gradients]
        losses.append(loss.numpy())
        norms.append(np.linalg.norm(each))
        kernels.append(each[0])
    tolerance = 1e-3 if mode.jit_compile else 1e-4
    for got, want in (
        (recorder.column("loss"), losses),
        (recorder.column("gradient_norm"), norms),
        (
            recorder.column("variable_gradient_norm", "net/hidden/kernel"),
            kernels,
        ),
    ):
        np.testing.assert_allclose(got, want, rtol=tolerance)
    assert (recorder.column("update_applied") == 1).all()
    assert (recorder.column("nonfinite") == 0).all()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The losses that a fit on arrays has, `[17]`."""
    recorder, folder = Recorder(), tmp_path_factory.mktemp("reference")
    watch = GradWatch(folder, xray_every_steps=0, sinks=[recorder])
    fit(classifier(), watch)
    return recorder.column("loss")


@pytest.mark.parametrize("kind", ["dataset", "generator", "numpy"])
def test_every_kind_of_data(kind: str, reference: Any, tmp_path: Path) -> None:
    """Arrays, `tf.data` and generators give the same readings."""
    recorder = Recorder()
    model = classifier()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    if kind == "numpy":
        fit(model, watch)
    elif kind == "generator":
        model.fit(
            batches(),
            steps_per_epoch=16,
            verbose=0,
            shuffle=False,
            callbacks=[watch],
        )
    else:
        rows = tf.data.Dataset.from_tensor_slices(data())
        dataset = rows.batch(BATCH)
        model.fit(dataset, verbose=0, shuffle=False, callbacks=[watch])
    assert recorder.steps == list(range(16 if kind == "generator" else 17))
    loss = recorder.column("loss")
    np.testing.assert_array_equal(loss, reference[: len(loss)])


def test_steps_go_on_over_fits(tmp_path: Path) -> None:
    """Further fits continue the run; a new compile or model does, too."""
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    model = classifier()
    for _ in range(3):
        fit(model, watch)
    run = watch.run
    model.compile("sgd", "mse", metrics=["mae"])
    x, _ = data()
    model.fit(x, np.zeros((ROWS, 3)), verbose=0, callbacks=[watch])
    fit(classifier(), watch)
    assert recorder.steps == list(range(5 * 17))
    assert watch.run is run
    assert len(list(tmp_path.iterdir())) == 1


def test_fits_do_not_trace_again(tmp_path: Path) -> None:
    """Many one-epoch fits trace at most once more than unwatched ones."""
    traces = []

    def loss(y: Any, p: Any) -> Any:
        traces.append(1)
        return keras.losses.sparse_categorical_crossentropy(
            y, p, from_logits=True
        )

    def traced(watch: GradWatch | None) -> int:
        model = classifier()
        model.compile("adam", loss)
        traces.clear()
        for _ in range(20):
            fit(model, *([watch] if watch else []), rows=2 * BATCH)
        return len(traces)

    # Keras' symbolic build, which gradwatch asks for, calls the loss once.
    assert traced(GradWatch(tmp_path, xray_every_steps=0)) <= traced(None) + 1


def test_sparse_gradients(tmp_path: Path) -> None:
    """An embedding's norm is that of the dense gradient, in XLA as well."""
    ids = np.random.default_rng(0).integers(0, 6, (64, 5))
    target = np.ones((64, 1), np.float32)
    for mode in (Mode(), Mode(jit_compile=True)):
        keras.utils.set_random_seed(0)
        layers = [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(50, 4, name="words"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, name="out"),
        ]
        model = keras.Sequential(layers, name="net")
        model.compile("sgd", "mse", **mode._asdict())
        with tf.GradientTape() as tape:
            error = tf.reduce_mean((model(ids) - target) ** 2)
        table = model.layers[0].embeddings
        dense = tf.convert_to_tensor(tape.gradient(error, table.value))
        recorder = Recorder()
        watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
        model.fit(
            ids,
            target,
            batch_size=64,
            verbose=0,
            shuffle=False,
            callbacks=[watch],
        )
        got = recorder.column("variable_gradient_norm", table.path)
        np.testing.assert_allclose(got, np.linalg.norm(dense), rtol=1e-4)


def test_overflowing_squares_are_no_nan(tmp_path: Path) -> None:
    """Finite gradients of 1e25 are neither Inf in the chart nor stopped."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, name="w")]
    )
    model.compile(
        keras.optimizers.SGD(1e-30), lambda y, p: keras.ops.mean(p) * 1e25
    )
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    x = np.ones((4, 1), np.float32)
    model.fit(x, x, batch_size=4, epochs=3, verbose=0, callbacks=[watch])
    assert watch.findings == []
    np.testing.assert_allclose(recorder.column("gradient_norm"), 1e25)


def test_clipping_is_not_in_the_norm(tmp_path: Path) -> None:
    """The norm is the one before clipping, and clipping still happens."""
    model = classifier()
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1e-3)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    before = [w.numpy() for w in model.trainable_weights]
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    x, y = data(32)
    model.fit(x, y, batch_size=32, verbose=0, callbacks=[watch])
    moved = [
        np.linalg.norm(w.numpy() - b)
        for w, b in zip(model.trainable_weights, before, strict=True)
    ]
    assert np.linalg.norm(moved) == pytest.approx(1e-3, rel=1e-3)
    assert recorder.column("gradient_norm")[0] > 0.1


def test_a_small_ring_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ring of a few rows and a pump that sleeps, every step arrives."""
    monkeypatch.setattr("gradwatch.capture.ring._BYTES", 4 * 13 * 5)
    monkeypatch.setattr("gradwatch.pump._CYCLE_SECONDS", 60.0)
    for mode in (Mode(), Mode(steps_per_execution=7)):
        recorder = Recorder()
        watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
        _fit(classifier(mode), watch, epochs=4)
        assert recorder.steps == list(range(4 * 17))


def test_times_ascend_and_lie_in_the_fit(tmp_path: Path) -> None:
    """Each step has a time of its own between the fit's begin and end."""
    recorder = Recorder()
    before = time.time()
    mode = Mode(steps_per_execution=5)
    _fit(
        classifier(mode),
        GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder]),
        epochs=3,
    )
    times = np.concatenate([b.times for b in recorder.blocks])
    assert before <= times[0]
    assert times[-1] <= time.time()
    assert (np.diff(times) >= 0).all()


def test_under_op_determinism_waiting_is_not_measured(tmp_path: Path) -> None:
    """TensorFlow forbids the clock in a step then; all else is as always."""
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=4, sinks=[recorder])
    watched, plain = (classifier(GRAPH) for _ in range(2))
    tf.config.experimental.enable_op_determinism()
    try:
        _fit(plain)
        _fit(watched, watch)
    finally:
        disable_op_determinism()
    assert_same(watched, plain)
    assert recorder.steps == list(range(34))
    assert recorder.schema.column("data_wait") is None
    assert np.isfinite(recorder.column("gradient_norm")).all()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("mode", mostly([MODES[1], *SOME]), ids=str)
def test_waiting_for_data_is_told_apart(mode: Mode, tmp_path: Path) -> None:
    """A batch that takes 100 ms to come is waiting, the rest of a step is not.

    Only the order of magnitude is asserted.
    """

    def slow() -> Any:
        for number, batch in enumerate(batches(512)):
            if number % 4 == 3:
                time.sleep(0.1)
            yield batch

    spec = (
        tf.TensorSpec([None, 8], tf.float32),
        tf.TensorSpec([None], tf.int64),
    )
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    data = tf.data.Dataset.from_generator(slow, output_signature=spec)
    model = classifier(mode)
    model.fit(data, verbose=0, shuffle=False, callbacks=[watch])
    waits = recorder.column("data_wait")
    assert len(waits) == 16
    slept = np.arange(16) % 4 == 3
    if not mode.run_eagerly:  # so slow that the data is there in time
        assert (waits[slept] >= 0.05).all()
    assert np.median(waits[~slept]) < 0.03
    assert (recorder.column("examples") == BATCH).all()
    times = recorder.column("step_time")
    rate = recorder.column("examples_per_second")
    np.testing.assert_allclose(rate, BATCH / times, rtol=1e-5)
    if mode.steps_per_execution == 1:
        assert (times >= waits * 0.99).all()
