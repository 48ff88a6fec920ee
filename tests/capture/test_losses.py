"""The loss ledger: parts by name, and they add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch, component
from tests.capture.test_fit import Recorder
from tests.models import MODES, SOME, Mode, assert_same, mostly

ROWS, BATCH = 80, 32  # the last batch holds 16


def _data(outputs: int = 1, rows: int = ROWS) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 8)).astype(np.float32)
    y = [
        random.normal(size=(rows, 3)).astype(np.float32) for _ in range(outputs)
    ]
    return x, y if outputs > 1 else y[0]


def _watched(
    model: Any, path: Path, x: Any, y: Any, **options: Any
) -> Recorder:
    recorder = Recorder()
    watch = GradWatch(path, xray_every_steps=0, sinks=[recorder])
    model.fit(
        x,
        y,
        batch_size=BATCH,
        verbose=0,
        shuffle=False,
        callbacks=[watch],
        **options,
    )
    assert watch.findings == []
    return recorder


def _components(recorder: Recorder, signal: str = "loss_component") -> Any:
    """Subject -> `[steps]` of all parts."""
    subjects = recorder.schema.columns(signal)
    return {s: recorder.column(signal, s) for s in subjects}


def _assert_adds_up(recorder: Recorder, tops: set[str]) -> None:
    """Asserts that `tops` add up to the loss, and children to their parent."""
    parts = _components(recorder)
    total = sum(parts[top] for top in tops)
    np.testing.assert_allclose(total, recorder.column("loss"), rtol=1e-5)
    for parent in parts:
        below = [v for p, v in parts.items() if p.startswith(f"{parent}/")]
        if below and parent in tops:
            np.testing.assert_allclose(sum(below), parts[parent], atol=1e-5)


def _two_headed(mode: Mode, **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(
        5, kernel_regularizer=keras.regularizers.L2(0.1), name="hidden"
    )(inputs)
    hidden = keras.layers.ActivityRegularization(l1=0.2, name="active")(hidden)
    outputs = [keras.layers.Dense(3, name=n)(hidden) for n in ("left", "right")]
    model = keras.Model(inputs, outputs, name="net")
    model.compile(keras.optimizers.SGD(0.0), **{**mode._asdict(), **options})
    return model


@pytest.mark.parametrize("mode", SOME, ids=str)
def test_outputs_weights_and_regularisers(mode: Mode, tmp_path: Path) -> None:
    """Each output raw and weighted, each layer's losses, by an own sum."""
    x, y = _data(2)
    model = _two_headed(mode, loss=["mse", "mae"], loss_weights=[0.5, 3.0])
    recorder = _watched(model, tmp_path, x, y)
    parts = _components(recorder)
    raw = _components(recorder, "raw_loss_component")
    kernel = model.get_layer("hidden").kernel.numpy()
    for step, first in enumerate(range(0, ROWS, BATCH)):
        rows = slice(first, first + BATCH)
        left, right = (t.numpy() for t in model(x[rows]))
        # Keras 3.12 does not divide it by the batch, later versions do.
        active = float(sum(model.get_layer("active").losses))
        wanted = {
            "left_loss": 0.5 * ((left - y[0][rows]) ** 2).mean(),
            "right_loss": 3.0 * np.abs(right - y[1][rows]).mean(),
            "hidden": 0.1 * (kernel**2).sum(),
            "active": active,
        }
        assert set(parts) == set(wanted)
        for subject, value in wanted.items():
            assert parts[subject][step] == pytest.approx(value, rel=1e-4)
        assert raw["right_loss"][step] == pytest.approx(
            wanted["right_loss"] / 3.0, rel=1e-4
        )
    _assert_adds_up(recorder, set(parts))


@pytest.mark.parametrize("kind", ["sample_weight", "class_weight", "sum"])
def test_weighted_samples(kind: str, tmp_path: Path) -> None:
    """Marked terms are weighted and reduced as their loss is."""
    x = _data()[0]
    y = np.arange(ROWS) % 3
    keras.utils.set_random_seed(1)
    layers = [keras.Input((8,)), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)

    def both(y: Any, p: Any) -> Any:
        entropy = keras.losses.sparse_categorical_crossentropy(y, p)
        entropy = component("entropy", entropy)
        spread = component("spread", keras.ops.square(p), 0.3)  # [batch, 3]
        constant = component("constant", keras.ops.max(p), 0.1)  # scalar
        spread = 0.3 * keras.ops.mean(spread, axis=-1)
        return entropy + spread + 0.1 * constant

    class Loss(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return both(y_true, y_pred)

    reduction = "sum" if kind == "sum" else "sum_over_batch_size"
    model.compile("adam", Loss("both", reduction))
    options: dict[str, Any] = {}
    if kind == "sample_weight":
        weights = np.random.default_rng(3).uniform(size=ROWS)
        options["sample_weight"] = weights.astype(np.float32)
    if kind == "class_weight":
        options["class_weight"] = {0: 0.2, 1: 5.0, 2: 1.0}
    recorder = _watched(model, tmp_path, x, y, **options)
    parts = _components(recorder)
    children = {"both/entropy", "both/spread", "both/constant"}
    assert set(parts) == {"both", "both/unexplained", *children}
    _assert_adds_up(recorder, {"both"})
    left = np.abs(parts["both/unexplained"])
    assert (left <= 1e-5 * np.abs(parts["both"])).all()
    raw = _components(recorder, "raw_loss_component")
    np.testing.assert_allclose(
        raw["both/spread"] * 0.3, parts["both/spread"], rtol=1e-5
    )


@pytest.mark.parametrize("mode", mostly([MODES[1], *SOME]), ids=str)
def test_terms_in_layers_and_losses(mode: Mode, tmp_path: Path) -> None:
    """A variational model: its terms are named, and nothing changes."""

    class Sampling(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            mean, spread = keras.ops.split(inputs, 2, axis=-1)
            spread = keras.ops.tanh(spread)
            kl = keras.ops.exp(spread) + mean**2 - 1 - spread
            kl = component("kl", keras.ops.mean(kl), 0.25)
            self.add_loss(0.25 * kl)
            self.add_loss(keras.ops.mean(spread**2))
            return mean

    def model() -> Any:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(4)(inputs)
        hidden = Sampling(name="sampling")(hidden)
        made = keras.Model(inputs, keras.layers.Dense(3)(hidden), name="vae")
        made.compile("adam", "mse", **mode._asdict())
        return made

    x, y = _data(rows=2 * BATCH if mode.jit_compile else ROWS)
    watched, plain = model(), model()
    recorder = _watched(watched, tmp_path, x, y)
    plain.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False)
    if not mode.jit_compile:
        assert_same(watched, plain)
    parts = _components(recorder)
    assert set(parts) == {
        "mse",
        "sampling",
        "sampling/kl",
        "sampling/unexplained",
    }
    _assert_adds_up(recorder, {"mse", "sampling"})
    assert (parts["sampling/unexplained"] > 1e-4).all()


def test_an_own_compute_loss(tmp_path: Path) -> None:
    """Terms in `compute_loss`; what is not marked is unexplained."""

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = keras.layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            return self.out(inputs)

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            fit = component("fit", keras.ops.mean((y - y_pred) ** 2))
            size = component("size", keras.ops.mean(y_pred**2), 0.1)
            return fit + 0.1 * size + 0.125

    keras.utils.set_random_seed(1)
    model = Own()
    model.compile("adam")
    recorder = _watched(model, tmp_path, *_data())
    parts = _components(recorder)
    assert set(parts) == {"fit", "size", "unexplained"}
    _assert_adds_up(recorder, set(parts))
    np.testing.assert_allclose(parts["unexplained"], 0.125, atol=1e-5)


def test_a_term_in_an_inner_graph_is_said_not_to_be_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and training goes on."""

    @tf.function
    def inner(p: Any) -> Any:
        return component("inner", tf.reduce_mean(p**2))

    def loss(y: Any, p: Any) -> Any:
        return keras.losses.mean_squared_error(y, p) + inner(p)

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.compile("adam", loss)
    recorder = _watched(model, tmp_path, *_data())
    assert set(_components(recorder)) == {"loss"}
    assert caplog.text.count("`component` inside of a `tf.function`") == 1


def test_component_outside_is_identity() -> None:
    """The same object comes back; wrong names are refused."""
    value = object()
    assert component("name", value) is value
    with pytest.raises(TypeError, match="`name`: Expected a string"):
        component(3, value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Say what the term is"):
        component("", value)
