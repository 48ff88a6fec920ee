"""Frequent X-rays leave no trace in what is trained, whatever is trained."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradwatch import GradWatch
from tests.capture.test_fit import Recorder
from tests.models import assert_same, at_length, values

ROWS, BATCH, EPOCHS = 48, 8, 2
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def _data() -> tuple[Any, Any]:
    """Whole numbers 0 to 4, so that they can be looked up as well."""
    x = np.random.default_rng(0).integers(0, 5, (ROWS, 6)).astype(np.float32)
    return x, np.sin(x[:, :1])


def _dense(*more: Any) -> Any:
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(4, "tanh"),
        *more,
        keras.layers.Dense(1, dtype="float32"),
    ]
    return keras.Sequential(layers, name="net")


def _noisy() -> Any:
    """Both kinds of state that a forward pass changes."""
    return _dense(
        keras.layers.BatchNormalization(), keras.layers.Dropout(0.3, seed=1)
    )


def _half(policy: str) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return _noisy()
    finally:
        keras.config.set_dtype_policy(before)


def _words() -> Any:
    """Sparse gradients with many rows of the same index."""
    layers = [
        keras.Input((6,)),
        keras.layers.Embedding(9, 3),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers, name="net")


def _extra() -> Any:
    """Regularisers of weights and outputs, and a loss of a layer's own."""
    return _dense(
        keras.layers.Dense(
            3, kernel_regularizer="l2", activity_regularizer="l1"
        ),
        keras.layers.ActivityRegularization(l2=0.01),
    )


def _outputs() -> Any:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, "relu")(inputs)
    heads = [keras.layers.Dense(1, name=n)(hidden) for n in ("left", "right")]
    return keras.Model(inputs, heads, name="net")


def _recurrent() -> Any:
    layers = [
        keras.Input((6,)),
        keras.layers.Reshape((6, 1)),
        keras.layers.GRU(3, dropout=0.2, recurrent_dropout=0.2, seed=1),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers, name="net")


class _Own(keras.Model):
    """Clips between tape and optimizer; its layers are not built."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.inside = _noisy()

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.inside(inputs, training=training)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        clipped, _ = tf.clip_by_global_norm(gradients, 0.1)
        self.optimizer.apply_gradients(zip(clipped, weights))
        return {"loss": loss}


MODELS: dict[str, Callable[[], Any]] = {
    "noisy": _noisy,
    "float16": lambda: _half("mixed_float16"),
    "bfloat16": lambda: _half("mixed_bfloat16"),
    "words": _words,
    "extra": _extra,
    "outputs": _outputs,
    "recurrent": _recurrent,
    "own": _Own,
}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": Adam,
    "momentum": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "clipnorm": lambda: SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: Adam(global_clipnorm=0.1),
    "clipvalue": lambda: SGD(0.1, clipvalue=0.02),
    "accumulation": lambda: Adam(
        gradient_accumulation_steps=4, global_clipnorm=0.1
    ),
    "decay_ema": lambda: keras.optimizers.AdamW(
        0.01, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=5
    ),
}


def _assert_close(left: Any, right: Any) -> None:
    """Asserts that no value is further away than rounding explains."""
    pairs = zip(values(left).items(), values(right).values(), strict=True)
    for (path, ours), theirs in pairs:
        apart = np.linalg.norm(np.subtract(ours, theirs, dtype=np.float64))
        assert apart <= 1e-6 * np.linalg.norm(theirs), path


def _trained(model: str, optimizer: str, path: Path | None, **mode: Any) -> Any:
    """Returns a model after twelve steps; watched ones had X-rays."""
    keras.utils.set_random_seed(7)
    net = MODELS[model]()
    net.compile(OPTIMIZERS[optimizer](), "mse", **mode)
    x, y = _data()
    recorder = Recorder()
    callbacks = []
    if path:
        callbacks = [
            GradWatch(path, sinks=[recorder], xray_every_steps=3, budget=1.0)
        ]
    history = net.fit(
        x,
        [y, -y] if model == "outputs" else y,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=callbacks,
    )
    for watch in callbacks:
        assert watch.findings == []
        assert recorder.steps == list(range(EPOCHS * ROWS // BATCH))
        # Later ones may cost more than all the other steps together; one step
        # of these twelve begins an execution and applies what was collected.
        least = 1 if optimizer == "accumulation" else 2
        assert sum(b.xray.sum() for b in recorder.blocks) >= least
    return net, history.history


@pytest.mark.parametrize(
    ("model", "optimizer", "execute"),
    [
        ("noisy", "accumulation", 3),
        ("float16", "adam", 1),
        ("words", "global_clipnorm", 1),
        ("extra", "clipvalue", 1),
        ("own", "adam", 3),
        *at_length(
            [
                ("noisy", "decay_ema", 1),
                ("bfloat16", "clipnorm", 1),
                ("outputs", "clipnorm", 1),
                ("recurrent", "adam", 1),
            ]
        ),
    ],
)
def test_frequent_xrays_change_nothing(
    model: str, optimizer: str, execute: int, tmp_path: Path
) -> None:
    """All weights, state and history are bit by bit those of plain fit."""
    mode = {"steps_per_execution": execute}
    plain, expected = _trained(model, optimizer, None, **mode)
    watched, got = _trained(model, optimizer, tmp_path, **mode)
    assert got == expected
    assert_same(watched, plain)


def test_frequent_xrays_under_xla(tmp_path: Path) -> None:
    """Other fusions round in other ways, and that is all.

    Here of sparse gradients; `test_xray.py` has BatchNorm and Dropout.
    """
    plain, _ = _trained("words", "clipvalue", None, jit_compile=True)
    watched, _ = _trained("words", "clipvalue", tmp_path, jit_compile=True)
    _assert_close(watched, plain)


def test_xla_on_a_gpu_reaches_all_variables(tmp_path: Path) -> None:
    """TensorFlow keeps int32 of a GPU on the host, where XLA cannot use it."""
    model = _words()
    model.compile("adam", "mse", jit_compile=True)
    watch = GradWatch(tmp_path, xray_every_steps=2, on_nonfinite="rollback")
    x, y = _data()
    model.fit(x.astype(np.int32), y, BATCH, verbose=0, callbacks=[watch])
    own = [
        each
        for each in gc.get_objects()
        if type(each) is ResourceVariable and each.name.startswith("gradwatch_")
    ]
    names = {each.name.partition(":")[0] for each in own}
    assert names >= {"gradwatch_xray_histograms", "gradwatch_ring"}
    assert "gradwatch_box" in names
    assert [each.name for each in own if each.dtype == tf.int32] == []


def test_a_product_that_tensorflow_reorders(tmp_path: Path) -> None:
    """A gradient that nobody looks at may be rounded in another way.

    TensorFlow 2.21 turns `(a * b) * rate` into `(rate * a) * b` where `a * b`,
    here the gradient of BatchNorm's scale, is needed for nothing else.
    """
    plain, _ = _trained("noisy", "momentum", None)
    watched, _ = _trained("noisy", "momentum", tmp_path)
    _assert_close(watched, plain)
    options = tf.config.optimizer
    before = options.get_experimental_options()
    options.set_experimental_options({"arithmetic_optimization": False})
    try:
        plain, _ = _trained("noisy", "momentum", None)
        watched, _ = _trained("noisy", "momentum", tmp_path)
    finally:
        kept = {"arithmetic_optimization": True, **before}
        options.set_experimental_options(kept)
    assert_same(watched, plain)
