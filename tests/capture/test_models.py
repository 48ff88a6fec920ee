"""Models of many kinds: each compared with one plain tape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch
from tests.capture.test_fit import Recorder

ROWS = 64


def _shared() -> Any:
    """One layer called twice."""
    inputs = keras.Input((6,))
    twice = keras.layers.Dense(6, "tanh", name="twice")
    outputs = keras.layers.Dense(1, name="out")(twice(twice(inputs)))
    return keras.Model(inputs, outputs, name="net")


def _nested() -> Any:
    """A model inside of a model, with layers of the same name."""
    inner = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, "tanh", name="same")],
        name="inner",
    )
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(6, "tanh", name="same")(inputs)
    outputs = keras.layers.Dense(1, name="out")(inner(hidden))
    return keras.Model(inputs, outputs, name="net")


def _recurrent() -> Any:
    """A recurrent layer over the six numbers."""
    layers = [
        keras.Input((6,)),
        keras.layers.Reshape((6, 1)),
        keras.layers.GRU(3, name="memory"),
        keras.layers.Dense(1, name="out"),
    ]
    return keras.Sequential(layers, name="net")


def _partly_frozen() -> Any:
    """The first layer is not trained."""
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(5, "tanh", name="frozen", trainable=False),
        keras.layers.Dense(1, name="out"),
    ]
    return keras.Sequential(layers, name="net")


class _Lazy(keras.Model):
    """Subclassed, built by the first batch, with `add_loss`."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.hidden = keras.layers.Dense(5, "tanh", name="hidden")
        self.out = keras.layers.Dense(1, name="out")

    def call(self, inputs: Any) -> Any:
        hidden = self.hidden(inputs)
        self.add_loss(0.1 * keras.ops.mean(hidden**2))
        return self.out(hidden)


def _data() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    return x, np.sin(x[:, :1] * 3)


def _watched(model: Any, path: Path, **options: Any) -> Recorder:
    recorder = Recorder()
    watch = GradWatch(path, sinks=[recorder], xray_every_steps=0)
    x, y = _data()
    model.fit(x, y, batch_size=ROWS, verbose=0, callbacks=[watch], **options)
    assert watch.findings == []
    return recorder


KINDS = (_shared, _nested, _recurrent, _partly_frozen, _Lazy)
COMPILED = (_shared, _recurrent, _Lazy)  # XLA sees no names


@pytest.mark.parametrize(
    ("made", "jit"),
    [*((kind, False) for kind in KINDS), *((kind, True) for kind in COMPILED)],
)
def test_norms_of_every_variable(made: Any, jit: bool, tmp_path: Path) -> None:
    """Each trainable variable has a norm of its own name, the right one."""
    keras.utils.set_random_seed(4)
    model = made()
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit)
    recorder = _watched(model, tmp_path, epochs=2)
    x, y = _data()
    with tf.GradientTape() as tape:
        error = tf.reduce_mean((model(x, training=True) - y) ** 2)
        error += sum(model.losses)
    weights = model.trainable_variables
    gradients = tape.gradient(error, [v.value for v in weights])
    columns = recorder.schema.columns("variable_gradient_norm")
    assert list(columns) == [v.path for v in weights]
    for variable, gradient in zip(weights, gradients, strict=True):
        norms = recorder.column("variable_gradient_norm", variable.path)
        np.testing.assert_allclose(norms, np.linalg.norm(gradient), rtol=1e-3)
    np.testing.assert_allclose(recorder.column("loss"), error, rtol=1e-4)


def test_unfreezing_opens_a_new_schema(tmp_path: Path) -> None:
    """After `compile` with more to train the steps go on, with more slots."""
    model, recorder = _partly_frozen(), Recorder()
    watch = GradWatch(tmp_path, sinks=[recorder], xray_every_steps=0)
    x, y = _data()
    seen = []
    for trainable in (False, True):
        model.get_layer("frozen").trainable = trainable
        model.compile("sgd", "mse")
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[watch])
        columns = recorder.schema.columns("variable_gradient_norm")
        seen.append((recorder.schema.first_step, list(columns)))
    out = ["net/out/kernel", "net/out/bias"]
    frozen = ["net/frozen/kernel", "net/frozen/bias"]
    assert seen == [(0, out), (4, [*frozen, *out])]
    assert recorder.steps == list(range(8))
    assert watch.findings == []
