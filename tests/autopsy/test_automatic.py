"""A run explains its own bad steps when its fit ends."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import (
    EventFileLoader,
)

from gradwatch import GradWatch, NonFiniteError, default_rules
from gradwatch.autopsy import limit as limits
from gradwatch.capture.contents import contents
from gradwatch.replay import replay
from gradwatch.sinks.findings import read_findings
from gradwatch.strict_json import dumps
from tests.models import at_length

pytestmark = pytest.mark.autopsy

BATCH, BAD = 8, 3


def distance(y: Any, p: Any) -> Any:
    """No derivative at 0."""
    return tf.reduce_mean(tf.norm(y - p, axis=-1))  # here


def _data(*bad: int) -> tuple[Any, Any]:
    """Batches of 8; in a bad one the targets are what a model of 0 says."""
    x = np.random.default_rng(0).normal(size=(6 * BATCH, 4))
    y = np.ones((6 * BATCH, 2), np.float32)
    for batch in bad or (BAD,):
        y[batch * BATCH : (batch + 1) * BATCH] = 0
    return x.astype(np.float32), y


def _model(jit: bool = False) -> Any:
    """Answers 0 for good: its rate is 0. With dropout, whose seed changes."""
    keras.utils.set_random_seed(0)
    zero = {"kernel_initializer": "zeros", "name": "last"}
    layers = [
        keras.Input((4,)),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2, **zero),
    ]
    model = keras.Sequential(layers)
    rate = keras.optimizers.Adam(0.0)
    model.compile(rate, distance, metrics=["mae"], jit_compile=jit)
    return model


def _fit(model: Any, watch: GradWatch, *bad: int) -> None:
    x, y = _data(*bad)
    model.fit(
        x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[watch]
    )


def _values(model: Any) -> list[Any]:
    """All state there is, and the function that trains."""
    return [v.numpy() for _, _, v in contents(model)]


def _texts(path: Path) -> Iterator[str]:
    (file,) = path.glob("events.out.tfevents.*")
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.tag == "autopsies":
                yield value.tensor.string_val[0].decode()


@pytest.mark.parametrize("jit", [False, True])
def test_a_stopped_run_says_which_operation_it_was(
    jit: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the finding, both files, state.json, TensorBoard and the log."""
    watch = GradWatch(tmp_path, xray_every_steps=0)
    with caplog.at_level(logging.WARNING, "gradwatch"):
        _fit(_model(jit), watch)
    assert watch.path is not None
    box = watch.path / "blackbox" / f"step-{BAD}"
    found = json.loads((box / "autopsy.json").read_text())
    assert (found["operation"], found["phase"]) == ("Sqrt", "backward")
    assert found["reproducible"]
    assert (found["step"], found["optimizer_step"]) == (BAD, BAD)
    assert found["source"]["text"].endswith("# here")
    (finding,) = watch.findings
    headline = "The gradient of Sqrt is not finite in distance (test_automatic"
    assert headline in finding.message
    assert "epsilon inside of it" in finding.advice
    assert headline in watch.summary()
    report = (box / "autopsy.md").read_text()
    assert headline in report
    assert list(_texts(watch.path)) == [report]
    state = json.loads((watch.path / "state.json").read_text())
    assert state == json.loads(dumps(watch.state))
    (told,) = state["autopsies"]
    assert (told["step"], told["verdict"]) == (BAD, "model")
    assert told["headline"] in finding.message
    assert state["findings"][0]["message"] == finding.message
    assert [n for *_, n in state["counters"]["findings"]] == [1]
    assert state["reason"] == "nonfinite"
    lines = [r.getMessage() for r in caplog.records if headline in r.message]
    assert len(lines) == 1
    assert "\n" not in lines[0]


def test_replay_and_file_say_what_the_run_has_said(tmp_path: Path) -> None:
    """`findings.jsonl` only grows: the finding, and once more explained."""
    watch = GradWatch(tmp_path, xray_every_steps=0)
    _fit(_model(), watch)
    assert watch.path is not None
    lines = (watch.path / "findings.jsonl").read_text().splitlines()
    assert len(lines) == 2
    (read,) = read_findings(watch.path)
    (again,) = replay(watch.path, default_rules())
    (live,) = watch.findings
    assert dumps(read) == dumps(live) == dumps(again) == lines[1]
    assert "Sqrt" not in lines[0].split('"advice"')[0]


@pytest.mark.parametrize(
    ("policy", "jit"),
    [
        ("stop", False),
        ("skip", True),
        *at_length([("raise", False), ("skip", False), ("record", False)]),
    ],
)
def test_the_live_model_is_not_touched(
    policy: Any, jit: bool, tmp_path: Path
) -> None:
    """Bitwise the same as without an autopsy, also after a further fit."""
    ends = []
    for seconds in (0, 30):
        model = _model(jit)
        model.make_train_function()
        function = model.train_function
        watch = GradWatch(
            tmp_path,
            on_nonfinite=policy,
            autopsy_seconds=seconds,
            xray_every_steps=0,
        )
        raises = pytest.raises(NonFiniteError)
        with raises if policy == "raise" else nullcontext() as caught:
            _fit(model, watch)
        if caught is not None:
            assert ("Sqrt" in str(caught.value)) is bool(seconds)
            assert caught.value.finding == watch.findings[0]
        assert model.train_function is function
        values = _values(model)
        _fit(model, watch, 99)  # no batch is bad
        ends.append([*values, *_values(model)])
        assert len(watch.state["autopsies"]) == (1 if seconds else 0)
    for plain, examined in zip(*ends, strict=True):
        np.testing.assert_array_equal(plain, examined)


def test_each_incident_of_a_run_that_skips(tmp_path: Path) -> None:
    """First one first, with the state of its own step, at the fit's end."""
    x = np.ones((200 * BATCH, 1), np.float32)
    y = np.ones((200 * BATCH, 1), np.float32)
    x[5 * BATCH], y[150 * BATCH + 2] = np.nan, np.inf
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = GradWatch(tmp_path, on_nonfinite="skip", xray_every_steps=0)
    model.fit(
        x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[watch]
    )
    found = [(a["step"], a["verdict"]) for a in watch.state["autopsies"]]
    assert found == [(5, "data"), (150, "data")]
    assert [f.first_step for f in watch.findings] == [5, 150]
    assert all("batch itself holds" in f.message for f in watch.findings)
    assert "NaN or Inf, in example 2." in watch.findings[1].message
    assert watch.state["phase"] == "finished"


def test_weights_that_are_lost_explain_nothing(tmp_path: Path) -> None:
    """With "record" they are those after the step, and that is said."""
    watch = GradWatch(tmp_path, on_nonfinite="record", xray_every_steps=0)
    _fit(_model(), watch)
    (finding,) = watch.findings
    assert "No autopsy: the weights that are left are" in finding.message
    assert watch.state["phase"] == "finished"


def test_later_weights_prove_nothing(tmp_path: Path) -> None:
    """A step that is finite with them may be no riddle: that is not claimed."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    rate = keras.optimizers.SGD(0.01)

    def loss(y: Any, p: Any) -> Any:
        count = tf.cast(rate.iterations, tf.float32)
        return (y - p) ** 2 + tf.math.log(tf.abs(count - BAD))

    model.compile(rate, loss)
    watch = GradWatch(tmp_path, on_nonfinite="record", xray_every_steps=0)
    _fit(model, watch)
    (finding,) = watch.findings
    said = f"those after step {BAD}, with which this one is finite."
    assert (
        f"No autopsy: the weights that are left are {said}" in finding.message
    )


class Twins(keras.Model):
    """Two nets, each with an optimizer of its own, and a term in a closure."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.left = keras.layers.Dense(1, name="left")
        self.right = keras.layers.Dense(1, name="right")
        self.root = lambda value: value**power  # here
        self.left_optimizer = keras.optimizers.SGD(0.0)
        self.right_optimizer = keras.optimizers.Adam(0.0)

    def call(self, x: Any) -> Any:
        """Keras: both."""
        return self.left(x), self.right(x)

    def train_step(self, data: Any) -> Any:
        """Keras: one update each."""
        (x,) = data
        with tf.GradientTape(persistent=True) as tape:
            a, b = self(x, training=True)
            left = tf.reduce_mean(a**2)
            right = tf.reduce_mean(self.root(b - x[:, :1]))
        for loss, net, optimizer in (
            (left, self.left, self.left_optimizer),
            (right, self.right, self.right_optimizer),
        ):
            used = net.trainable_variables
            optimizer.apply(tape.gradient(loss, used), used)
        return {"loss": left + right}


def test_a_train_step_of_the_users_with_two_optimizers(tmp_path: Path) -> None:
    """The line of a closure that no other process could build."""
    model = Twins(0.5)
    model.compile()
    model(np.zeros((1, 4), np.float32))
    x = -np.ones((6 * BATCH, 4), np.float32)
    model.right.kernel.assign(np.zeros((4, 1)))
    x[BAD * BATCH + 1, 0] = 1.0  # a root of -1
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(
        tf.data.Dataset.from_tensor_slices((x,)).batch(BATCH),
        verbose=0,
        shuffle=False,
        callbacks=[watch],
    )
    (finding,) = watch.findings
    assert finding.first_step == BAD
    assert "`self.root = lambda value: value**power  # here`" in finding.message


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    """`train_on_batch` leaves a batch, and the block's end explains it."""
    model, (x, y) = _model(), _data()
    watch = GradWatch(tmp_path, xray_every_steps=0)
    with watch.watching(model):
        for first in range(0, len(x), BATCH):
            few = slice(first, first + BATCH)
            model.train_on_batch(x[few], y[few])
            if model.stop_training:
                break
    (finding,) = watch.findings
    assert "Sqrt is not finite" in finding.message


def test_in_the_scope_of_a_strategy(tmp_path: Path) -> None:
    """One replica of one: the step is traced as that of a single device."""
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        watch = GradWatch(tmp_path, xray_every_steps=0)
        _fit(_model(), watch)
    assert "Sqrt is not finite" in watch.findings[0].message


def test_a_nest_with_ragged_rows_and_nothing(tmp_path: Path) -> None:
    """Composite tensors come back as what they were."""

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = keras.layers.Dense(1)

        def train_step(self, batch: Any) -> Any:
            inputs, nothing, weights = batch
            assert nothing is None
            with tf.GradientTape() as tape:
                rows = tf.reduce_sum(inputs["ragged"], axis=1)[:, None]
                dense = tf.sparse.to_dense(inputs["sparse"])
                p = self.out(rows + dense[:, :1])
                loss = tf.reduce_mean(weights * tf.math.log(rows + p * 0))
            used = self.out.trainable_variables
            self.optimizer.apply(tape.gradient(loss, used), used)
            return {"loss": loss}

    ragged = tf.ragged.constant([[1.0, 2.0], [3.0], [4.0], [1.0]] * 3 + [[]])
    ragged = tf.concat([ragged, ragged[:3]], 0)
    sparse = tf.sparse.from_dense(np.eye(16, dtype=np.float32))
    inputs = {"ragged": ragged, "sparse": sparse}
    weights = np.ones((16, 1), np.float32)
    model = Net()
    model.compile("sgd")
    model.out.build((None, 1))
    rows = tf.data.Dataset.from_tensor_slices((inputs, weights)).batch(8)
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(
        rows.map(lambda inputs, w: (inputs, None, w)),
        verbose=0,
        shuffle=False,
        callbacks=[watch],
    )
    assert "Log is not finite" in watch.findings[0].message


def test_a_limit_is_kept_and_the_next_step_named(tmp_path: Path) -> None:
    """What TensorFlow runs is cancelled, no thread is left, fit goes on."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", distance)
    watch = GradWatch(tmp_path, xray_every_steps=0, autopsy_seconds=1e-3)
    began = time.monotonic()
    x, y = _data()
    x[BAD * BATCH] = np.nan
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[watch], **options)
    assert time.monotonic() - began < 30
    (finding,) = watch.findings
    assert "not over after 0.001 s" in finding.message
    assert f"`gradwatch autopsy {watch.path} --model" in finding.message
    assert "Find NaN or Inf in the inputs" in finding.advice
    (again,) = replay(str(watch.path), default_rules())
    assert again.message == finding.message
    assert "gradwatch-autopsy" not in {t.name for t in threading.enumerate()}
    model.fit(x[:BATCH], y[:BATCH], **options)


def test_a_function_that_runs_is_cancelled() -> None:
    """A long loop ends within the grace, and is told as time that is up."""
    x = tf.ones([300, 300])

    @tf.function
    def long() -> Any:
        y = x
        for _ in tf.range(100_000):
            y = tf.linalg.matmul(y, x) * 1e-3
        return y

    function = long.get_concrete_function()
    limit = limits.Limit(0.2)
    began = time.monotonic()
    with pytest.raises(limits.TimeUp):
        limit.run(lambda: limit.call(function))
    assert time.monotonic() - began < 0.2 + limits._GRACE_SECONDS
    assert "gradwatch-autopsy" not in {t.name for t in threading.enumerate()}


PROGRAM = """
import tensorflow as tf
from gradwatch.autopsy.limit import Limit, TimeUp

@tf.function(jit_compile=True)
def compiled(x):
    for i in range(100):
        x = tf.nn.softmax(tf.matmul(x, x) + i) + tf.sin(x)
    return x

x = tf.ones([64, 64])
limit = Limit(0.3)
try:
    limit.run(lambda: compiled(x))
except TimeUp:
    print("time is up")
"""


def test_a_process_ends_well_while_xla_compiles() -> None:
    """What cannot be interrupted is waited for, ten seconds at most."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "time is up\n"


def test_ctrl_c_ends_the_autopsy_and_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves `fit`, the run is closed as it was, the model as it was."""

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(limits.Limit, "run", interrupted)
    model = _model()
    model.make_train_function()
    function = model.train_function
    watch = GradWatch(tmp_path, xray_every_steps=0)
    with pytest.raises(KeyboardInterrupt):
        _fit(model, watch)
    assert model.train_function is function
    assert (watch.state["phase"], watch.state["reason"]) == (
        "failed",
        "nonfinite",
    )
    assert watch.state["autopsies"] == []
    assert len(watch.findings) == 1
    monkeypatch.undo()
    _fit(model, watch, 99)
    assert watch.state["phase"] == "finished"


def test_an_autopsy_that_fails_is_told(tmp_path: Path) -> None:
    """The incident is reported and the run ends as it would."""

    class Once(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            if not tf.executing_eagerly() and "fails" in vars(self):
                raise ValueError("only once")
            return super().train_step(data)

    model = Once([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", distance)
    x, y = _data()
    x[BAD * BATCH] = np.nan

    class Spoils(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            object.__setattr__(self.model, "fails", True)

    watch = GradWatch(tmp_path, xray_every_steps=0)
    options: Any = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[Spoils(), watch], **options)
    (finding,) = watch.findings
    assert "No autopsy: it failed (ValueError: only once" in finding.message
    assert watch.state["reason"] == "nonfinite"


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """0 seconds, and without data in the black box there is nothing to do."""
    for options in ({"autopsy_seconds": 0}, {"blackbox": "weights"}):
        watch = GradWatch(tmp_path, xray_every_steps=0, **options)
        _fit(_model(), watch)
        assert watch.state["autopsies"] == []
        assert watch.path is not None
        assert not [*watch.path.glob("blackbox/*/autopsy*")]
