"""Programs that are rare, legal, and must train as if nobody watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch, UnsupportedError, component
from tests.capture.test_fit import Recorder

ROWS, BATCH = 64, 16


def _data() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    return x, np.sin(x[:, :1])


def _fit(model: Any, path: Path | None, **options: Any) -> Recorder:
    """Trains twelve steps, watched if there is a path."""
    recorder, callbacks = Recorder(), []
    if path is not None:
        callbacks = [GradWatch(path, sinks=[recorder], xray_every_steps=2)]
    kept = {"x": _data()[0], "y": _data()[1], **options}
    model.fit(
        **kept,
        batch_size=BATCH,
        epochs=3,
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
    )
    for watch in callbacks:
        assert watch.findings == []
    return recorder


def _assert_same(make: Any, path: Path, **options: Any) -> Recorder:
    """Trains two models of a kind, one watched; asserts equal weights."""
    models = []
    for logdir in (None, path):
        keras.utils.set_random_seed(7)
        models.append(make())
        recorder = _fit(models[-1], logdir, **options)
    plain, watched = models
    for a, b in zip(watched.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert recorder.steps == list(range(12))
    return recorder


class _Own(keras.Model):
    """A regression whose kinds differ in their `train_step`."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.out = keras.layers.Dense(1, name="out")

    def call(self, inputs: Any) -> Any:
        return self.out(inputs)

    def gradients(self, data: Any) -> Any:
        """Loss and gradients of a batch."""
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data[0], training=True) - data[1]) ** 2)
        return loss, tape.gradient(loss, self.trainable_variables)


class _Generator(_Own):
    """Passes its variables as a generator."""

    def train_step(self, data: Any) -> Any:
        loss, gradients = self.gradients(data)
        self.optimizer.apply(gradients, (v for v in self.trainable_variables))
        self.optimizer.apply([], [])
        return {"loss": loss}


class _Loops(_Own):
    """A `tf.function` whose Python is converted by AutoGraph."""

    @tf.function
    def train_step(self, data: Any) -> Any:
        factor = tf.constant(1.0)
        for _ in tf.range(3):
            factor *= 0.5
        loss, gradients = self.gradients(data)
        if factor < 0.5:
            loss *= 1.0
        self.optimizer.apply(
            [g * factor for g in gradients], self.trainable_variables
        )
        return {"loss": loss}


class _Jacobian(_Own):
    """Takes its gradients in a way that no hook sees."""

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = (self(data[0], training=True) - data[1])[:, 0] ** 2
        weights = [v.value for v in self.trainable_variables]
        each = tape.jacobian(losses, weights)
        gradients = [tf.reduce_mean(g, 0) for g in each]
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": tf.reduce_mean(losses)}


@pytest.mark.parametrize("kind", [_Generator, _Loops, _Jacobian])
def test_unusual_train_steps(kind: Any, tmp_path: Path) -> None:
    """Weights are those of an unwatched fit, and norms are measured."""

    def make() -> Any:
        model = kind()
        model.compile("adam")
        return model

    recorder = _assert_same(make, tmp_path)
    assert (recorder.column("gradient_norm") > 0).all()


def test_layers_with_outputs_of_unknown_width(tmp_path: Path) -> None:
    """Attention scores over sequences of unknown length are passed over."""

    def make() -> Any:
        inputs = keras.Input((None, 4))
        attention = keras.layers.MultiHeadAttention(2, 3, dropout=0.1)
        hidden = attention(inputs, inputs)
        pooled = keras.layers.GlobalAveragePooling1D()(hidden)
        model = keras.Model(inputs, keras.layers.Dense(1)(pooled), name="net")
        model.compile("adam", "mse")
        return model

    x = np.random.default_rng(1).normal(size=(ROWS, 5, 4)).astype(np.float32)
    spec = (
        tf.TensorSpec([None, None, 4], tf.float32),
        tf.TensorSpec([None, 1], tf.float32),
    )

    def rows() -> Any:
        for first in range(0, ROWS * 3, BATCH):
            part = x[first % ROWS : first % ROWS + BATCH]
            yield part[:, : 3 + first % 2], part[:, 0, :1]

    models = []
    for path in (None, tmp_path):
        keras.utils.set_random_seed(7)
        model, recorder = make(), Recorder()
        watch = GradWatch(tmp_path, sinks=[recorder], xray_every_steps=2)
        model.fit(
            tf.data.Dataset.from_generator(rows, output_signature=spec),
            steps_per_epoch=12,
            verbose=0,
            shuffle=False,
            callbacks=[watch] if path else [],
        )
        models.append(model)
    for a, b in zip(models[1].weights, models[0].weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert recorder.steps == list(range(12))
    assert sum(int(b.xray.sum()) for b in recorder.blocks) > 1


def test_an_embedding_with_gradient_accumulation(tmp_path: Path) -> None:
    """Slices are collected as what they stand for; the norm is right."""

    def make() -> Any:
        layers = [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(9, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
        model = keras.Sequential(layers, name="net")
        rule = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
        model.compile(rule, "mse")
        return model

    x = np.random.default_rng(2).integers(0, 9, (ROWS, 6))
    recorder = _assert_same(make, tmp_path, x=x)
    applied = recorder.column("applied_gradient_norm")
    assert np.isfinite(applied[3::4]).all()
    assert np.isnan(applied[0])


def test_loss_scaling_with_own_clipping(tmp_path: Path) -> None:
    """An overflow that loss scaling drops by itself is no bad step."""

    class Clips(_Own):
        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                output = self(data[0], training=True)
                loss = tf.reduce_mean((output - data[1]) ** 2)
                scaled = self.optimizer.scale_loss(loss)
            weights = self.trainable_variables
            clipped, _ = tf.clip_by_global_norm(
                tape.gradient(scaled, weights), 1e9
            )
            self.optimizer.apply(clipped, weights)
            return {"loss": loss}

    def make() -> Any:
        model = Clips()
        model.compile(
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.1), initial_scale=2.0**66
            )
        )
        return model

    recorder = _assert_same(make, tmp_path)
    dropped = recorder.column("update_dropped")
    assert dropped[0] == 1
    assert dropped[-1] == 0
    assert (recorder.column("nonfinite") == 0).all()


def test_state_after_the_update_is_judged(tmp_path: Path) -> None:
    """A value assigned behind `apply` stops the run, and all goes back."""

    class Centre(_Own):
        def build(self, shape: Any) -> None:
            self.centre = self.add_weight(
                shape=(), initializer="zeros", trainable=False, name="centre"
            )
            super().build(shape)

        def train_step(self, data: Any) -> Any:
            loss, gradients = self.gradients(data)
            self.optimizer.apply(gradients, self.trainable_variables)
            self.centre.assign(tf.reduce_mean(tf.math.log(data[0][:, 0] + 9.0)))
            return {"loss": loss}

    x, y = _data()
    x[2 * BATCH, 0] = -20.0  # the logarithm of the third batch
    y[2 * BATCH] = 0.0
    keras.utils.set_random_seed(7)
    model, watch = Centre(), GradWatch(tmp_path, xray_every_steps=0)
    model.compile("adam")
    seen: list[Any] = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: seen.append(
            model.get_weights()
        )
    )
    model.fit(
        x,
        y,
        batch_size=BATCH,
        verbose=0,
        shuffle=False,
        callbacks=[watch, look],
    )
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_weight", 2)
    assert "centre" in finding.subject
    for now, then in zip(model.get_weights(), seen[2], strict=True):
        np.testing.assert_array_equal(now, then)


def test_terms_of_each_class_do_not_break_the_step(tmp_path: Path) -> None:
    """A marked value that is no `[batch]` is averaged."""

    def loss(y: Any, p: Any) -> Any:
        component("per_class", tf.reduce_mean((y - p) ** 2, 0))
        return keras.losses.mean_squared_error(y, p)

    def make() -> Any:
        layers = [keras.Input((6,)), keras.layers.Dense(3)]
        model = keras.Sequential(layers, name="net")
        model.compile("sgd", loss)
        return model

    recorder = _assert_same(make, tmp_path, y=np.repeat(_data()[1], 3, 1))
    part = recorder.column("loss_component", "loss/per_class")
    np.testing.assert_allclose(part, recorder.column("loss"), rtol=1e-4)


def test_seeded_draws_of_a_graph_keep_their_stream(tmp_path: Path) -> None:
    """No X-ray is taken of a step whose random numbers no variable holds."""

    class Noise(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs + 0.1 * tf.random.normal(tf.shape(inputs), seed=3)

    def make() -> Any:
        layers = [keras.Input((6,)), Noise(), keras.layers.Dense(1)]
        model = keras.Sequential(layers, name="net")
        model.compile("sgd", "mse")
        return model

    recorder = _assert_same(make, tmp_path)
    assert not any(b.xray.any() for b in recorder.blocks)


def test_an_own_train_function_is_refused(tmp_path: Path) -> None:
    """It would be replaced silently otherwise."""

    class Makes(_Own):
        def make_train_function(self, force: bool = False) -> Any:
            return super().make_train_function(force)

    model = Makes()
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedError, match="make_train_function"):
        _fit(model, tmp_path)


def test_automatic_steps_per_execution_are_left_to_keras(
    tmp_path: Path,
) -> None:
    """Keras takes "auto" in `compile`, and what its `fit` says of it counts."""

    def outcome(path: Path | None) -> tuple[str, Any]:
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", steps_per_execution="auto")
        said = ""
        try:
            _fit(model, path)
        except TypeError as error:  # Keras 3.15.1
            said = str(error)
        # The model is none the worse for it.
        model.compile("sgd", "mse", steps_per_execution=2)
        _fit(model, path)
        return said, model.get_weights()

    (plain, theirs), (watched, ours) = outcome(None), outcome(tmp_path)
    assert watched == plain
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_optimizers_of_the_same_name(tmp_path: Path) -> None:
    """Each has its own losses and norms."""

    class Pair(_Own):
        def train_step(self, data: Any) -> Any:
            loss, gradients = self.gradients(data)
            for rule, g, v in zip(
                self.rules, gradients, self.trainable_variables
            ):
                rule.apply([g], [v])
            return {"loss": loss}

    model = Pair()
    model.compile()
    sgd = keras.optimizers.SGD
    model.rules = [sgd(0.1, name="rule"), sgd(0.2, name="rule")]
    recorder = _fit(model, tmp_path)
    rates = recorder.schema.columns("optimizer_learning_rate")
    assert list(rates) == ["rule", "rule#2"]
