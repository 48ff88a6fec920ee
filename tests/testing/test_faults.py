"""Faults, in a real `fit` of a model that is not the demo's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch, GradWatchError, UnsupportedError
from gradwatch.records import Block
from gradwatch.replay import Opened
from gradwatch.testing.data import digit_ids
from gradwatch.testing.faults import (
    Crash,
    Float16Overflow,
    Hang,
    InfWeight,
    Kill,
    LearningRate,
    NanBatch,
    SlowSteps,
    ZeroedLayer,
)
from gradwatch.testing.programs import dense_net, sgd
from gradwatch.testing.recording import Recorder
from tests.models import GRAPH, Mode, assert_same, classifier, data, fit

MODES = (GRAPH, Mode(steps_per_execution=4), Mode(run_eagerly=True))
AT = 22  # in the second epoch, which begins with step 17; not divisible by 4


def _digits(
    fault: Any, path: Path, optimizer: Any = None, **options: Any
) -> Any:
    """Trains a net with one hidden layer; returns what watched it."""
    keras.utils.set_random_seed(0)
    model = dense_net(64, [48], 10, last="softmax", **options)
    model.compile(
        optimizer or sgd(0.1),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    watch = GradWatch(path, budget=1.0)
    x, y = digit_ids()
    model.fit(
        x, y, batch_size=64, epochs=9, verbose=0, callbacks=[watch, fault]
    )
    return watch


@pytest.mark.parametrize(
    ("mode", "first"), [(GRAPH, True), (MODES[1], False), (MODES[2], False)]
)
def test_a_nan_batch_at_its_step(
    mode: Mode, first: bool, tmp_path: Path
) -> None:
    """The finding names inputs and step; the fault may stand anywhere."""
    model, fault, watch = classifier(mode), NanBatch(AT), GradWatch(tmp_path)
    fit(model, *((fault, watch) if first else (watch, fault)), epochs=3)
    (finding,) = watch.findings
    assert (finding.rule, finding.subject) == ("nonfinite_batch", "inputs")
    assert finding.first_step == AT
    assert int(model.optimizer.iterations) == AT
    assert fault.time > 0


class Numbered(keras.utils.PyDataset):
    """Ten batches with sample weights."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        x, y = (part[index * 8 : index * 8 + 8] for part in data())
        return x, y, np.ones(8, np.float32)


def _unknown_length() -> Any:
    """Ten batches of a `tf.data` pipeline that does not know its length."""
    batches = tf.data.Dataset.from_tensor_slices(data(80)).batch(8)
    return batches.filter(lambda x, y: True)


def _generator() -> Any:
    while True:
        x, y = data(8)
        yield x, y


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    ("feed", "options"),
    [
        (Numbered, {}),
        (_unknown_length, {}),
        (_generator, {"steps_per_epoch": 10}),
    ],
)
def test_data_of_any_kind(feed: Any, options: Any, tmp_path: Path) -> None:
    """Step 20 is the first of the third epoch, wherever batches come from."""
    model, watch = classifier(), GradWatch(tmp_path)
    callbacks = [watch, NanBatch(20, value=np.inf)]
    options = {"verbose": 0, "shuffle": False, **options}
    model.fit(feed(), epochs=4, callbacks=callbacks, **options)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_batch", 20)


def test_batches_are_handed_on_as_they_are() -> None:
    """A batch that is late by nothing leaves a training bit-identical."""
    plain, broken = classifier(MODES[1]), classifier(MODES[1])
    fit(plain, epochs=4)
    slow = SlowSteps(at_step=48, factor=1.001)
    fit(broken, Hang(AT, 0.0), Hang(33, 0.0), slow, epochs=4)
    assert slow.time > 0
    assert_same(plain, broken)


def test_steps_go_on_over_fits(tmp_path: Path) -> None:
    """The second fit begins with step 17, also after one that is stopped."""
    model, watch, fault = classifier(), GradWatch(tmp_path), InfWeight(AT)
    fit(model, watch, fault)
    assert not fault.time
    fit(model, watch, fault)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_weight", AT)


def test_an_inf_in_one_weight(tmp_path: Path) -> None:
    """It is told at its step that the weights were lost before."""
    model, watch = classifier(MODES[1]), GradWatch(tmp_path)
    fault = InfWeight(21, "net/classes/bias", value=np.nan)
    fit(model, watch, fault, epochs=2)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_weight", 21)
    assert np.isnan(model.get_layer("classes").bias.numpy()[0])


def test_a_learning_rate_that_explodes(tmp_path: Path) -> None:
    """The loss climbs from this step on, above all that it was."""
    watch = _digits(LearningRate(60, 1000.0), tmp_path)
    (finding,) = [f for f in watch.findings if f.severity == "critical"]
    assert finding.rule == "diverging_loss"
    assert finding.first_step in (59, 60)


def test_a_layer_of_zeros(tmp_path: Path) -> None:
    """Its units are dead at the X-ray of this step, with momentum, too."""
    fault = ZeroedLayer(100, "hidden_1")
    watch = _digits(fault, tmp_path, keras.optimizers.Adam(0.01))
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("dead_units", 100)
    assert finding.subject.endswith("hidden_1")


def test_float16_overflows(tmp_path: Path) -> None:
    """What is fine in float32 makes the loss of float16 NaN at this step."""
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    adam = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    watch = _digits(Float16Overflow(40), tmp_path, adam, dtype=policy)
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("nonfinite_loss", 40)
    assert not finding.evidence["nonfinite_batch"]


def _recorded(model: Any, path: Path, *faults: Any) -> dict[str, Any]:
    """Trains; returns times [s] and waiting [s] of the steps."""
    recorder = Recorder()
    watch = GradWatch(path, rules=[recorder], xray_every_steps=0)
    fit(model, watch, *faults, epochs=6)
    blocks = [r for r in recorder.received if isinstance(r, Block) and len(r)]
    opened = [r for r in recorder.received if isinstance(r, Opened)][-1]
    values = np.concatenate([block.values for block in blocks])
    return {
        name: values[:, opened.schema.column(name)]
        for name in ("step_time", "data_wait")
    }


@pytest.mark.parametrize("mode", MODES[:2], ids=str)
def test_a_hang(mode: Mode, tmp_path: Path) -> None:
    """One step waits for its batch, and only this one."""
    waits = _recorded(classifier(mode), tmp_path, Hang(AT, 0.7))["data_wait"]
    assert waits.argmax() == AT
    assert 0.7 <= waits.max() < 2
    assert np.sort(waits[1:])[-2] < 0.5


def test_slow_steps(tmp_path: Path) -> None:
    """Steps take several times as long from this one on."""
    fault = SlowSteps(51, factor=8.0)
    seconds = _recorded(classifier(), tmp_path, fault)["step_time"]
    usual, slow = np.median(seconds[2:51]), np.median(seconds[51:])
    assert slow > 4 * usual
    assert np.mean(seconds[11:51] > 4 * usual) < 0.5
    assert np.mean(seconds[51:] > 4 * usual) > 0.8


def test_a_crash(tmp_path: Path) -> None:
    """The exception leaves `fit` just before this step."""
    model = classifier()
    with pytest.raises(RuntimeError, match="step 22"):
        fit(model, GradWatch(tmp_path), Crash(AT), epochs=2)
    assert int(model.optimizer.iterations) == AT


class Counts(keras.Model):
    """Takes whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = keras.layers.Embedding(8, 3)

    def call(self, x: Any) -> Any:
        return self.symbols(x)[:, 0]


def _scheduled() -> Any:
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model = classifier()
    model.compile(sgd(rate), "mse")
    return model


FOUR = Mode(steps_per_execution=4)


@pytest.mark.parametrize(
    ("build", "fault", "said"),
    [
        (lambda: classifier(FOUR), lambda: InfWeight(AT), "take 21, or"),
        (lambda: classifier(FOUR), lambda: Kill(7), "Received: 7. .* take 4"),
        (classifier, lambda: Float16Overflow(3), "computes in float16"),
        (_scheduled, lambda: LearningRate(3, 1.0), "ExponentialDecay"),
        (classifier, lambda: ZeroedLayer(3, "middle"), "'hidden', 'norm'"),
        (classifier, lambda: InfWeight(3, "kernel"), "net/hidden/kernel"),
        (classifier, lambda: SlowSteps(3), "Expected 11 or more"),
    ],
)
def test_refused_before_the_first_step(
    build: Any, fault: Any, said: str
) -> None:
    """What cannot be done at this step of this model is said in time."""
    model = build()
    with pytest.raises(GradWatchError, match=said):
        fit(model, fault(), epochs=2)
    assert int(model.optimizer.iterations) == 0


def test_data_that_cannot_have_it() -> None:
    """Whole numbers, steps that nobody knows, and parted batches."""
    model = Counts()
    model.compile("sgd", "mse")
    x, y = np.ones((64, 2), np.int32), np.ones((64, 3), np.float32)
    with pytest.raises(GradWatchError, match="int32"):
        model.fit(x, y, verbose=0, callbacks=[NanBatch(5)])
    assert int(model.optimizer.iterations) == 0
    model, feed = classifier(FOUR), _unknown_length()
    with pytest.raises(UnsupportedError, match="number of batches"):
        model.fit(feed, verbose=0, shuffle=False, callbacks=[NanBatch(5)])
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = classifier()
    with pytest.raises(UnsupportedError, match="OneDeviceStrategy"):
        fit(model, NanBatch(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NanBatch(-1),
        lambda: NanBatch(1.5),  # type: ignore[arg-type]
        lambda: Hang(1, float("nan")),
        lambda: SlowSteps(20, factor=1.0),
    ],
)
def test_arguments_that_cannot_be_used(make: Any) -> None:
    """They are refused where they are given."""
    with pytest.raises(GradWatchError, match="Expected"):
        make()


def test_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A fault says when it comes, and when it has not come."""
    fit(classifier(), InfWeight(16), NanBatch(17))
    assert [record.message for record in caplog.records] == [
        "Fault at step 16: an entry of the last kernel is inf.",
        "No fault (the batch's first example is nan): step 17 was not "
        "reached, 17 were trained.",
    ]
