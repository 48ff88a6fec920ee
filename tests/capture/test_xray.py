"""X-rays: one training step like any other that also measures a lot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch
from gradwatch.capture import statistics
from gradwatch.records import Block
from gradwatch.signals import HISTOGRAM_EDGES, SIGNALS, Slot
from tests.capture.test_fit import Recorder
from tests.models import (
    BATCH,
    MODES,
    ROWS,
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


def _xrayed(
    model: Any, path: Path, every: int, epochs: int = 1, rows: int = ROWS
) -> Recorder:
    recorder = Recorder()
    watch = GradWatch(
        path, sinks=[recorder], xray_every_steps=every, budget=1.0
    )
    fit(model, watch, epochs=epochs, rows=rows)
    assert watch.findings == []
    return recorder


def _xray_steps(recorder: Recorder) -> list[int]:
    return [int(s) for b in recorder.blocks for s in b.steps[b.xray]]


def _histogram(recorder: Recorder, slot: Slot) -> Any:
    """All of a slot's histograms, `[X, bins]`."""
    blocks: list[Block] = [b for b in recorder.blocks if b.xray.any()]
    return np.concatenate([b.histograms[slot] for b in blocks])


@pytest.mark.parametrize("mode", mostly(MODES), ids=str)
def test_an_xray_is_a_step_like_any_other(mode: Mode, tmp_path: Path) -> None:
    """Nothing changes, no reading is lost, X-rays come when planned."""
    rows = WHOLE if mode.jit_compile else ROWS
    steps = -(-rows // BATCH)
    plain, watched = classifier(mode), classifier(mode)
    fit(plain, epochs=2, rows=rows)
    recorder = _xrayed(watched, tmp_path, 7, epochs=2, rows=rows)
    assert recorder.steps == list(range(2 * steps))
    if mode.steps_per_execution > 1:  # an epoch is one execution here
        assert _xray_steps(recorder) == [steps]
    else:
        assert _xray_steps(recorder) == [7, 10, 14, 20, 21, 28]
    if not mode.jit_compile:
        assert_same(watched, plain)
    pairs = zip(values(watched).items(), values(plain).values(), strict=True)
    for (path, ours), theirs in pairs:
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5, atol=1e-6, err_msg=path
        )
    for place, slot in enumerate(recorder.schema.slots):
        values_of = [b.values[:, place] for b in recorder.blocks]
        xray = np.concatenate([b.xray for b in recorder.blocks])
        column = np.concatenate(values_of)
        if SIGNALS[slot.signal].xray:
            assert np.isnan(column[~xray]).all(), slot
            if slot.signal != "xray_trace":
                assert np.isfinite(column[xray]).all(), slot


@pytest.mark.parametrize("mode", [MODES[0], MODES[2], MODES[4]], ids=str)
def test_xrays_measure_what_an_own_loop_sees(
    mode: Mode, tmp_path: Path
) -> None:
    """Every kind of value agrees with a loop that uses no gradwatch."""
    step = 3
    rows = (step + 1) * BATCH
    recorder = _xrayed(classifier(mode, drop=0), tmp_path, step, rows=rows)
    assert _xray_steps(recorder)[0] == step
    model = classifier(drop=0)
    for number, (x, y) in enumerate(batches()):
        with tf.GradientTape() as tape:
            output = model(x, training=True)
            loss = model.compute_loss(x, y, output, None)
        gradients = tape.gradient(loss, model.trainable_variables)
        before = [v.numpy() for v in model.trainable_variables]
        model.optimizer.apply(gradients, model.trainable_variables)
        if number == step:
            break
    after = [v.numpy() for v in model.trainable_variables]
    place = [v.path for v in model.trainable_variables].index(
        "net/hidden/kernel"
    )
    gradient, kernel = gradients[place].numpy(), before[place]
    hidden = np.maximum(x @ kernel + before[place + 1], 0)
    each = keras.losses.sparse_categorical_crossentropy(
        y, output, from_logits=True
    ).numpy()
    shares = np.unique(y, return_counts=True)[1] / len(y)
    part = "sparse_categorical_crossentropy"
    wanted = {
        Slot("variable_gradient_max_abs", "net/hidden/kernel"): np.abs(
            gradient
        ).max(),
        Slot("variable_zero_gradient_ratio", "net/hidden/kernel"): (
            gradient == 0
        ).mean(),
        Slot("variable_weight_norm", "net/hidden/kernel"): np.linalg.norm(
            kernel
        ),
        Slot("variable_update_norm", "net/hidden/kernel"): np.linalg.norm(
            after[place] - kernel
        ),
        Slot("layer_mean", "net/hidden"): hidden.mean(),
        Slot("layer_std", "net/hidden"): hidden.std(),
        Slot("layer_max_abs", "net/hidden"): hidden.max(),
        Slot("layer_silent_ratio", "net/hidden"): (hidden == 0).all(0).mean(),
        Slot("layer_nonfinite", "net/hidden"): 0,
        Slot("batch_mean", "inputs"): x.mean(),
        Slot("batch_min", "inputs"): x.min(),
        Slot("batch_std", "inputs"): x.std(),
        Slot("batch_distinct", "targets"): 3,
        Slot("batch_integer_ratio", "targets"): 1,
        Slot("batch_example_std", "inputs"): np.sqrt(x.var(0).mean()),
        Slot("batch_example_std", "targets"): y.std(),
        Slot("variable_unit_spread", "net/hidden/kernel"): np.sqrt(
            kernel.var(1).mean() / (kernel**2).mean()
        ),
        Slot("component_lowest_loss", part): 0,
        Slot("component_constant_loss", part): -(np.log(shares) * shares).sum(),
        Slot("batch_max", "predictions"): output.numpy().max(),
        Slot("batch_unit_row_ratio", "predictions"): 0,
        Slot("example_loss_max"): each.max(),
        Slot("example_loss_median"): np.sort(each)[round(0.5 * 31)],
        Slot("example_loss_high"): np.sort(each)[round(0.9 * 31)],
    }
    row = recorder.steps.index(step)
    for slot, value in wanted.items():
        got = recorder.column(*slot)[row]
        assert got == pytest.approx(value, rel=2e-3, abs=1e-5), slot
    for kind, entries in (
        ("gradient_histogram", gradient),
        ("weight_histogram", kernel),
    ):
        places = np.searchsorted(HISTOGRAM_EDGES, entries.ravel(), "right")
        counts = np.bincount(places, minlength=len(HISTOGRAM_EDGES) + 1)
        got = _histogram(recorder, Slot(kind, "net/hidden/kernel"))[0]
        assert np.abs(got - counts).sum() <= 2  # rounding may move one
    got = _histogram(recorder, Slot("activation_histogram", "net/hidden"))[0]
    assert got.sum() == hidden.size
    assert got[49] == (hidden == 0).sum()


@pytest.mark.parametrize("jit", [False, True])
def test_gradients_of_components(jit: bool, tmp_path: Path) -> None:
    """Norms and cosines agree with a tape for each output's loss."""

    def made() -> Any:
        keras.utils.set_random_seed(2)
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(6, "tanh", name="hidden")(inputs)
        outs = [
            keras.layers.Dense(1, name=n)(hidden) for n in ("left", "right")
        ]
        model = keras.Model(inputs, outs, name="net")
        model.compile(
            keras.optimizers.SGD(0.0),
            ["mse", "mse"],
            loss_weights=[1.0, 0.3],
            jit_compile=jit,
        )
        return model

    x, y = data(32)
    target = (y[:, None].astype(np.float32), -y[:, None].astype(np.float32))
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder], xray_every_steps=1)
    made().fit(x, target, epochs=2, batch_size=32, verbose=0, callbacks=[watch])
    model, gradients = made(), []
    for place, weight in enumerate((1.0, 0.3)):
        with tf.GradientTape() as tape:
            error = model(x)[place] - target[place]
            loss = weight * tf.reduce_mean(error**2)
        found = tape.gradient(
            loss,
            [v.value for v in model.trainable_variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients.append(np.concatenate([g.numpy().ravel() for g in found]))
    left, right = gradients
    norms = np.linalg.norm(left), np.linalg.norm(right)
    row = recorder.steps.index(_xray_steps(recorder)[0])
    for name, norm in zip(("left_loss", "right_loss"), norms):
        got = recorder.column("component_gradient_norm", name)[row]
        assert got == pytest.approx(norm, rel=1e-3)
    cosine = recorder.column(
        "component_gradient_cosine", "left_loss|right_loss"
    )
    assert cosine[row] == pytest.approx(left @ right / np.prod(norms), rel=1e-3)


def test_none_costs_nothing(tmp_path: Path) -> None:
    """With 0 there is no X-ray signal, and the loss is traced no more often."""
    traces = []

    def loss(y: Any, p: Any) -> Any:
        traces.append(1)
        return keras.losses.sparse_categorical_crossentropy(
            y, p, from_logits=True
        )

    counts = []
    for every in (0, 5):
        model = classifier()
        model.compile("adam", loss)
        traces.clear()
        recorder = _xrayed(model, tmp_path, every)
        counts.append(len(traces))
        signals = {s.signal for s in recorder.schema.slots}
        assert any(SIGNALS[s].xray for s in signals) == bool(every)
    assert counts[1] > counts[0]


def test_the_trace_time_and_the_share_are_told(tmp_path: Path) -> None:
    """The first X-ray says how long tracing took, each what they cost."""
    recorder = _xrayed(classifier(), tmp_path, 5)
    xray = np.concatenate([b.xray for b in recorder.blocks])
    trace = recorder.column("xray_trace")[xray]
    assert trace[0] > 0.01
    assert np.isnan(trace[1:]).all()
    share = recorder.column("xray_share")[xray]
    assert share[0] == 0
    assert (share >= 0).all()  # one may be as fast as its neighbours
    assert share.max() > 0
    assert (share < 1).all()


def test_cells_of_recurrent_layers_are_left_out(tmp_path: Path) -> None:
    """What exists only inside of a loop is not measured; the layer is."""
    keras.utils.set_random_seed(0)
    cell = keras.layers.GRUCell(4, name="cell")
    layers = [
        keras.Input((5, 3)),
        keras.layers.RNN(cell, name="recurrent"),
        keras.layers.Dense(1, "sigmoid", name="out"),
    ]
    model = keras.Sequential(layers, name="net")
    model.compile("sgd", "mse")
    recorder = Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder], xray_every_steps=1)
    x = np.random.default_rng(0).normal(size=(24, 5, 3)).astype(np.float32)
    y = 1 / (1 + np.exp(-x[:, 0, :1]))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[watch])
    assert watch.findings == []
    row = recorder.steps.index(_xray_steps(recorder)[0])
    measured = {
        s.subject
        for s in recorder.schema.slots
        if s.signal == "layer_mean"
        and np.isfinite(recorder.column("layer_mean", s.subject)[row])
    }
    assert measured == {"net/out"} or measured == {"out"}
    cell = recorder.column("layer_bound_ratio", "net/recurrent/cell")
    assert np.isnan(cell).all()


@pytest.mark.parametrize("jit", [False, True])
def test_histograms_count_like_numpy(jit: bool) -> None:
    """Both signs, zeros, tiny, huge and not finite entries."""
    random = np.random.default_rng(1)
    entries = random.choice([-1.0, 1.0], 20_000) * 10 ** random.uniform(
        -24, 6, 20_000
    )
    entries = entries.astype(np.float32)
    entries[:7] = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-30, -1e-30]
    counted = tf.function(statistics.histogram, jit_compile=jit)(entries)
    finite = entries[np.isfinite(entries)]
    places = np.searchsorted(HISTOGRAM_EDGES, finite, side="right")
    wanted = np.bincount(places, minlength=len(HISTOGRAM_EDGES) + 1)
    assert counted.numpy().sum() == len(finite)
    assert np.abs(np.cumsum(counted.numpy() - wanted)).max() <= 2


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_fields_of_several_outputs(
    named: bool, eager: bool, tmp_path: Path
) -> None:
    """They bear the output's name, however the targets come in."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    label, box = np.full((64, 1), 2, np.int32), x[:, :2] - 7
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    heads = {
        "label": keras.layers.Dense(3, "softmax", name="label")(hidden),
        "box": keras.layers.Dense(2, "relu", name="box")(hidden),
    }
    model = keras.Model(inputs, heads if named else list(heads.values()))
    losses = {"label": "sparse_categorical_crossentropy", "box": "mse"}
    model.compile("sgd", losses, run_eagerly=eager)
    recorder = Recorder()
    watch = GradWatch(
        tmp_path, sinks=[recorder], xray_every_steps=1, budget=1.0
    )
    model.fit(x, {"label": label, "box": box}, verbose=0, callbacks=[watch])
    fields = {
        slot.subject
        for slot in recorder.schema.slots
        if slot.signal == "batch_min"
    }
    both = ("targets", "predictions")
    wanted = {f"{field}/{name}" for field in both for name in heads}
    assert fields == {"inputs", *wanted}
    assert recorder.column("batch_min", "targets/label")[1] == 2
    assert recorder.column("batch_max", "targets/box")[1] < -3
    assert recorder.column("batch_max", "predictions/label")[1] <= 1
    (finding,) = [f for f in watch.findings if f.severity != "info"]
    assert (finding.rule, finding.subject) == ("output_mismatch", "box")
