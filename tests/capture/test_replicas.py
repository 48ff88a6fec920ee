"""`MirroredStrategy`: two replicas, each with half of the batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch, UnsupportedError
from gradwatch.capture.answers import ANSWERS
from gradwatch.signals import Slot
from tests.capture.test_fit import Recorder
from tests.models import Mode, at_length, classifier, data

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
ROWS = 512  # whole batches: Keras loses its weights to an empty replica
GRAPH, SEVERAL = Mode(), Mode(steps_per_execution=8)
EAGER = Mode(run_eagerly=True)


def _mirrored(cpus: int = 2, plain_sums: bool = False) -> Any:
    """A strategy; Keras runs several steps at once with plain sums only."""
    return _strategy(cpus, plain_sums)


@functools.cache
def _strategy(cpus: int, plain_sums: bool) -> Any:
    # Once each: two of them in a process disturb each other's collectives.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(cpus)],
        tf.distribute.ReductionToOneDevice() if plain_sums else None,
    )


@functools.cache
def _one_device() -> Any:
    return tf.distribute.OneDeviceStrategy("CPU:1")


def _model(
    strategy: Any,
    mode: Mode = GRAPH,
    make: Callable[[], Any] = Adam,
    **options: Any,
) -> Any:
    with strategy.scope():
        model = classifier(mode, **options)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(make(), loss, metrics=["accuracy"], **mode._asdict())
    return model


def _small(
    strategy: Any, make: Callable[[], Any] = Adam, **options: Any
) -> Any:
    """A model without state: its batch may be parted without a difference."""
    with strategy.scope():
        keras.utils.set_random_seed(3)
        layers = [
            keras.Input((8,)),
            keras.layers.Dense(
                6, "tanh", kernel_regularizer="l2", name="hidden"
            ),
            keras.layers.Dense(3, name="classes"),
        ]
        model = keras.Sequential(layers, name="net")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(make(), loss, **options)
    return model


def _fit(model: Any, *callbacks: Any, rows: int = ROWS, **options: Any) -> Any:
    x, y = (array[:rows] for array in data(ROWS))
    x = options.pop("x", x)
    kept = {"verbose": 0, "shuffle": False, "batch_size": 32, **options}
    return model.fit(x, y, callbacks=[*callbacks], **kept)


def _watched(path: Path, **options: Any) -> tuple[Any, Any]:
    """A watch and the recorder of its readings."""
    recorder = Recorder()
    watch = GradWatch(
        path, sinks=[recorder], **{"xray_every_steps": 0} | options
    )
    return watch, recorder


def copies(model: Any) -> dict[str, Any]:
    """Values of all variables on all replicas."""
    strategy = model.distribute_strategy
    everything = (
        *model.variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    )
    return {
        f"{i} {v.path} {j}": copy.numpy()
        for i, v in enumerate(everything)
        for j, copy in enumerate(strategy.experimental_local_results(v.value))
    }


def _assert_same(left: Any, right: Any) -> None:
    ours, theirs = copies(left), copies(right)
    for (path, a), b in zip(ours.items(), theirs.values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.parametrize(
    ("cpus", "mode", "on_nonfinite"),
    [
        (1, GRAPH, "stop"),
        (2, GRAPH, "stop"),
        (2, EAGER, "stop"),
        *at_length([(2, SEVERAL, "record")]),
    ],
    ids=str,
)
def test_watching_changes_nothing(
    cpus: int, mode: Mode, on_nonfinite: Any, tmp_path: Path
) -> None:
    """Each replica's copy of each variable is that of plain fit."""
    strategy = _mirrored(cpus, plain_sums=mode is SEVERAL)
    rows = 64 if mode is EAGER else ROWS
    plain = _model(strategy, mode)
    expected = _fit(plain, epochs=2, rows=rows).history
    watched = _model(strategy, mode)
    every = 7 if cpus > 1 else 0
    options = {"on_nonfinite": on_nonfinite, "xray_every_steps": every}
    watch, recorder = _watched(tmp_path, **options)
    got = _fit(watched, watch, epochs=2, rows=rows).history
    assert watch.findings == []
    assert recorder.steps == list(range(2 * rows // 32))
    assert (recorder.column("data_wait") > 0).all()
    assert got == expected
    _assert_same(watched, plain)


class Clipping(keras.Sequential):
    """Clips between tape and optimizer."""

    def train_step(self, data: Any) -> Any:
        """One step."""
        x, y = data
        with tf.GradientTape() as tape:
            p = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=p)
        gradients = tape.gradient(loss, self.trainable_variables)
        gradients = [tf.clip_by_norm(g, 0.01) for g in gradients]
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.compute_metrics(x, y, p)


class TwoOptimizers(keras.Sequential):
    """Each trains a part of the weights."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras'."""
        super().compile(*args, **kwargs)
        self.second = SGD(0.05)

    def train_step(self, data: Any) -> Any:
        """One step."""
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            p = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=p)
        weights = self.trainable_variables
        for optimizer, part in (
            (self.optimizer, weights[:2]),
            (self.second, weights[2:]),
        ):
            optimizer.apply(tape.gradient(loss, part), part)
        return self.compute_metrics(x, y, p)


@pytest.mark.parametrize("kind", [*at_length([Clipping]), TwoOptimizers])
def test_own_train_steps_of_lazy_models(kind: Any, tmp_path: Path) -> None:
    """Replicas make layers, metrics and optimizers in the middle of a step."""

    def model() -> Any:
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
        layers.insert(1, keras.layers.BatchNormalization())
        made = kind(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile("adam", loss, metrics=["accuracy"])
        return made

    with _mirrored().scope():
        plain, watched = model(), model()
    watch, recorder = _watched(tmp_path, xray_every_steps=5)
    assert _fit(watched, watch).history == _fit(plain).history
    assert recorder.steps == list(range(16))
    assert watch.findings == []
    _assert_same(watched, plain)


def _slots(recorder: Recorder) -> dict[Slot, Any]:
    """All columns but those of time."""
    return {
        slot: recorder.column(*slot)
        for slot in recorder.schema.slots
        if slot.signal
        not in ("step_time", "data_wait", "examples_per_second", "xray_trace")
    }


def test_readings_are_those_of_one_device(tmp_path: Path) -> None:
    """Loss, its parts and norms are about the whole batch."""
    watches = []
    for strategy in (tf.distribute.get_strategy(), _mirrored()):
        model = _small(strategy, lambda: SGD(0.1))
        watch, recorder = _watched(tmp_path, xray_every_steps=5, budget=1.0)
        _fit(model, watch)
        watches.append((_slots(recorder), model.get_weights()))
    (alone, weights), (mirrored, theirs) = watches
    blame = {Slot("replica_nonfinite", str(i)) for i in range(2)}
    assert set(mirrored) - set(alone) == blame
    assert set(alone) <= set(mirrored)
    everyday = [
        *(Slot(s) for s in ("loss", "gradient_norm", "examples")),
        *(
            s
            for s in alone
            if s.signal.startswith(("variable", "loss_", "comp"))
            and s.signal not in ANSWERS  # of the first replica's batch
        ),
    ]
    assert len(everyday) > 20
    for slot in everyday:
        np.testing.assert_allclose(
            mirrored[slot], alone[slot], rtol=2e-4, atol=1e-6, err_msg=str(slot)
        )
    assert all(not mirrored[slot].any() for slot in blame)
    for a, b in zip(weights, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def _broken(rows: int, row: int) -> Any:
    x = data(ROWS)[0][:rows]
    x[row] = np.nan
    return x


@pytest.mark.parametrize(
    ("replica", "mode"),
    [(0, GRAPH), (1, SEVERAL)],
    ids=str,
)
def test_nan_of_one_replica_is_kept_out_of_all(
    replica: int, mode: Mode, tmp_path: Path
) -> None:
    """The model is what it was before the step, and the replica is named."""
    strategy = _mirrored(plain_sums=mode is SEVERAL)
    rows, bad = 4 * 32, 2 * 32 + 16 * replica + 3
    expected = _model(strategy, mode)
    _fit(expected, rows=2 * 32)
    model = _model(strategy, mode)
    watch, recorder = _watched(tmp_path)
    _fit(model, watch, rows=rows, x=_broken(rows, bad))
    (finding,) = watch.findings
    # TensorFlow's fused Dense and ReLU makes NaN to 0, so the loss is finite.
    assert finding.rule == "nonfinite_batch"
    assert finding.first_step == 2
    assert finding.causes == ("data",)
    assert finding.evidence["nonfinite_replicas"] == [str(replica)]
    assert f"replica {replica}" in finding.message
    blame = recorder.column("replica_nonfinite", str(replica))
    np.testing.assert_array_equal(blame[:3], [0, 0, 1])
    other = recorder.column("replica_nonfinite", str(1 - replica))
    assert not other.any()
    _assert_same(model, expected)


@pytest.mark.parametrize("replica", [0, 1])
def test_loss_scaling_skips_for_all_replicas(
    replica: int, tmp_path: Path
) -> None:
    """Keras asks the first replica only; the update is dropped all the same."""

    def scaled() -> Any:
        return keras.optimizers.LossScaleOptimizer(
            SGD(0.1), initial_scale=1024.0
        )

    model = _small(_mirrored(), scaled)
    watch, recorder = _watched(tmp_path)
    seen: list[Any] = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(copies(self.model))

    x, y = data(3 * 32)
    weights = np.ones(len(x), np.float32)
    weights[32 + 16 * replica] = 1e38  # its gradient overflows, its loss not
    model.fit(
        x,
        y,
        32,
        callbacks=[watch, Look()],
        sample_weight=weights,
        shuffle=False,
        verbose=0,
    )
    assert watch.findings == []
    np.testing.assert_array_equal(recorder.column("update_dropped"), [0, 1, 0])
    np.testing.assert_array_equal(
        recorder.column("loss_scale"), [1024, 1024, 512]
    )
    for path, value in seen[0].items():
        if "kernel" in path or "bias" in path:
            np.testing.assert_array_equal(seen[1][path], value, err_msg=path)
            assert np.isfinite(seen[2][path]).all()


def test_an_error_of_the_users_passes_through(tmp_path: Path) -> None:
    """Of one replica, while its step is being traced."""

    def loss(y: Any, p: Any) -> Any:
        context = tf.distribute.get_replica_context()
        own = 0 if context is None else context.replica_id_in_sync_group
        if tf.get_static_value(own) == 1:
            raise RuntimeError("mine")
        return tf.reduce_mean(tf.square(p))

    with _mirrored().scope():
        model = classifier()
        model.compile("sgd", loss)
    watch, _ = _watched(tmp_path)
    with pytest.raises(RuntimeError, match="mine"):
        _fit(model, watch)
    assert "_all_reduce_sum_gradients" not in vars(model.optimizer)
    assert "compute_metrics" not in vars(model)


def test_what_is_not_measured_is_refused(tmp_path: Path) -> None:
    """By name: accumulation, at which Keras itself fails, and own loops."""
    model = _small(_mirrored(), lambda: SGD(gradient_accumulation_steps=2))
    watch, _ = _watched(tmp_path)
    with pytest.raises(UnsupportedError, match="gradient_accumulation_steps"):
        _fit(model, watch)
    with (
        pytest.raises(UnsupportedError, match="loop of your own"),
        watch.watching(_small(_mirrored())),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_one_device_strategy(tmp_path: Path) -> None:
    """Is watched like none."""
    plain, model = _model(_one_device()), _model(_one_device())
    watch, recorder = _watched(tmp_path, xray_every_steps=7)
    assert _fit(model, watch).history == _fit(plain).history
    assert watch.findings == []
    assert recorder.steps == list(range(16))
    _assert_same(model, plain)


def test_a_share_without_examples(tmp_path: Path) -> None:
    """Is no fault; the last batch has one example for two replicas."""
    plain, model = _small(_mirrored()), _small(_mirrored())
    watch, recorder = _watched(tmp_path)
    _fit(model, watch, rows=65)
    _fit(plain, rows=65)
    assert watch.findings == []
    np.testing.assert_array_equal(recorder.column("examples"), [32, 32, 1])
    _assert_same(model, plain)


@pytest.mark.parametrize("option", ["global_clipnorm", "clipvalue"])
def test_each_replica_clips_its_own(option: str, tmp_path: Path) -> None:
    """Before the sum, as Keras does; both norms are those of the sum."""

    def clipping() -> Any:
        return SGD(0.1, **{option: 0.05})

    plain, model = (_small(_mirrored(), clipping) for _ in range(2))
    start = model.get_weights()
    watch, recorder = _watched(tmp_path)
    _fit(model, watch, rows=32)
    _fit(plain, rows=32)
    _assert_same(model, plain)
    x, y = (array[:32] for array in data(ROWS))
    alone = _small(tf.distribute.get_strategy(), clipping)
    alone.set_weights(start)
    whole, clipped = [], []
    for half in (slice(0, 16), slice(16, 32)):
        with tf.GradientTape() as tape:
            loss = alone.compute_loss(x[half], y[half], alone(x[half])) / 2
        gradients = tape.gradient(loss, alone.trainable_variables)
        whole.append([g.numpy() for g in gradients])
        cut = alone.optimizer._clip_gradients(gradients)
        clipped.append([g.numpy() for g in cut])
    before, after = (
        np.linalg.norm([np.linalg.norm(a + b) for a, b in zip(*both)])
        for both in (whole, clipped)
    )
    assert recorder.column("gradient_norm")[0] == pytest.approx(before, 1e-5)
    found = recorder.column("applied_gradient_norm")[0]
    assert found == pytest.approx(after, 1e-5)
    factor = recorder.column("clip_factor")[0]
    assert factor == pytest.approx(after / before, 1e-5)
    assert factor < 0.9


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_the_cut_of_a_gradient_is_found(tmp_path: Path) -> None:
    """The first replica's graph tells what keeps variables from a gradient."""
    with _mirrored().scope():
        code = keras.layers.Dense(6, name="code")
        detach = keras.layers.Lambda(keras.ops.stop_gradient, name="detach")
        stack = [keras.Input((8,)), code, detach, keras.layers.Dense(1)]
        model = keras.Sequential(stack, name="net")
        model.compile("sgd", "mse")
    watch, _ = _watched(tmp_path)
    _fit(model, watch, rows=32)
    (finding,) = watch.findings
    (cut,) = finding.evidence["cuts"]
    assert (cut["kind"], cut["layer"]) == ("stop_gradient", "net/detach")
    assert cut["variables"] == ["net/code/kernel", "net/code/bias"]
