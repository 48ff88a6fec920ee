"""GradWatch in a fit: what it accepts, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwatch import GradWatch, GradWatchError, UnsupportedError
from tests.models import GRAPH, Mode, classifier, data

STEPS = 8
ROWS = 7 * 32 + 8
"""Ends before the first X-ray: to trace it costs more than the rest."""


def _fit(model: Any, *callbacks: Any, rows: int = ROWS, **options: Any) -> Any:
    x, y = data(rows)
    kept = {"verbose": 0, "batch_size": 32, **options}
    return model.fit(x, y, callbacks=[*callbacks], **kept)


class Fails(keras.callbacks.Callback):
    """Raises in one of its hooks."""

    def __init__(self, hook: str, error: BaseException) -> None:
        super().__init__()
        self.error = error
        setattr(self, hook, self.fail)

    def fail(self, *_: Any, **__: Any) -> None:
        """Raises."""
        raise self.error


class FailingLoss(keras.losses.Loss):
    """A loss whose value cannot be computed at run time."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Raises in the graph."""
        check = tf.debugging.Assert(tf.constant(False), ["no"])
        with tf.control_dependencies([check]):
            return tf.identity(y_pred[:, 0])


def _traces_of_us(model: Any) -> list[str]:
    """Attributes of a model and its optimizer that mention gradwatch."""
    return [
        name
        for thing in (model, model.optimizer)
        for name, value in vars(thing).items()
        if "gradwatch" in repr(type(value)) + repr(value)
        or name in ("compute_loss", "apply", "train_step")
    ]


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)
def test_the_model_is_as_before(tmp_path: Path) -> None:
    """Function object, attributes, variables and the .keras file are plain."""
    watched, plain = classifier(), classifier()
    config = watched.get_config()
    seen: dict[str, Any] = {}
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: seen.update(f=watched.train_function)
    )
    _fit(watched, GradWatch(tmp_path / "runs"), look, rows=520)  # X-rays
    _fit(plain)
    assert "Tap" in repr(seen["f"])
    assert _traces_of_us(watched) == []
    assert sorted(vars(watched)) == sorted(vars(plain))
    assert len(watched.variables) == len(plain.variables)
    original = watched.train_function
    _fit(watched, GradWatch(tmp_path / "runs"))
    assert watched.train_function is original
    watched.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x, _ = data(ROWS)
    np.testing.assert_array_equal(
        watched.predict(x, verbose=0), again.predict(x, verbose=0)
    )
    assert watched.get_config() == config


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("mine")])
def test_an_exception_in_the_step(error: BaseException, tmp_path: Path) -> None:
    """An exception that passes through the step leaves the model as it was."""
    model = classifier(Mode(run_eagerly=True))
    original_step = type(model.layers[0]).call
    calls = []

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 5:
            raise error
        return original_step(self, *args, **kwargs)

    watch = GradWatch(tmp_path)
    type(model.layers[0]).call = call
    try:
        with pytest.raises(type(error)):
            _fit(model, watch)
    finally:
        type(model.layers[0]).call = original_step
    assert _traces_of_us(model) == []
    state = watch.state
    interrupted = isinstance(error, KeyboardInterrupt)
    assert state["phase"] == ("interrupted" if interrupted else "failed")
    assert state["reason"] == type(error).__name__
    assert state["steps"] > 0
    _fit(model, GradWatch(tmp_path))


def test_an_error_of_the_graph(tmp_path: Path) -> None:
    """An error that TensorFlow raises in the step ends the run as failed."""
    model = classifier()
    model.compile("sgd", FailingLoss())
    watch = GradWatch(tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError):
        _fit(model, watch)
    assert watch.state["reason"] == "InvalidArgumentError"
    assert _traces_of_us(model) == []


@pytest.mark.parametrize("watched", [True, False])
def test_an_exception_elsewhere_is_healed(
    watched: bool, tmp_path: Path
) -> None:
    """Another callback's exception is healed when the next fit begins."""
    model = classifier()
    first = GradWatch(tmp_path)
    with pytest.raises(KeyError):
        _fit(model, first, Fails("on_epoch_end", KeyError()))
    plain = classifier()
    _fit(plain)
    second = GradWatch(tmp_path)
    _fit(model, *([second] if watched else []))
    _fit(plain)
    assert _traces_of_us(model) == []
    assert first.state["phase"] == "failed"
    if watched:
        assert second.state["steps"] == STEPS
    for a, b in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_on_batch_heals_too(tmp_path: Path) -> None:
    """What a dead fit left is taken out by an unwatched `train_on_batch`."""
    model = classifier()
    with pytest.raises(KeyError):
        _fit(model, GradWatch(tmp_path), Fails("on_epoch_end", KeyError()))
    model.train_on_batch(*data(32))
    assert _traces_of_us(model) == []


def test_the_same_object_after_a_dead_fit(tmp_path: Path) -> None:
    """A watcher whose fit died can be used again and counts on."""
    model, watch = classifier(), GradWatch(tmp_path)
    with pytest.raises(KeyError):
        _fit(model, watch, Fails("on_epoch_end", KeyError()))
    _fit(model, watch)
    assert watch.state["steps"] == 2 * STEPS
    assert watch.state["phase"] == "finished"


def test_two_watchers_in_one_fit(tmp_path: Path) -> None:
    """Two are refused before the first step, the same one twice as well."""
    one = GradWatch(tmp_path)
    for both in ([GradWatch(tmp_path), GradWatch(tmp_path)], [one, one]):
        model = classifier()
        with pytest.raises(GradWatchError, match="one GradWatch in a fit"):
            _fit(model, *both)
        assert _traces_of_us(model) == []
        assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"on_nonfinite": "foo"}, "Received: 'foo'"),
        ({"max_skips": 0}, "at least 1. Received: 0"),
        ({"max_skips": True}, "Received: True"),
        ({"blackbox": "all"}, "Received: 'all'"),
        ({"on_nonfinite": "back"}, "'skip' or 'rollback'. Received: 'back'"),
        ({"max_rollbacks": 0}, "at least 1. Received: 0"),
        ({"max_rollbacks": 2.0}, "Received: 2.0"),
        ({"rollback_factor": 0}, "at most 1. Received: 0"),
        ({"rollback_factor": 1.5}, "Received: 1.5"),
        ({"rollback_factor": "half"}, "Received: 'half'"),
        ({"snapshots": "ram"}, "'memory' or 'disk'. Received: 'ram'"),
        ({"every_steps": -1}, "at least 1. Received: -1"),
        ({"every_steps": 0.5}, "Received: 0.5"),
        ({"every_steps": True}, "Received: True"),
        ({"metrics_port": 70000}, "Received: 70000"),
        ({"name": "a/b"}, "Received: 'a/b'"),
        ({"name": ".hidden"}, "Received: '.hidden'"),
        ({"labels": {"a": 1}}, "strings to strings"),
        ({"rules": ["nonfinite_loss"]}, "Received: 'nonfinite_loss'"),
        ({"sinks": [object()]}, "open, write, close"),
        ({"logdir": 7}, "Received: 7"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    """Each is refused at construction: expected, received, what to do."""
    with pytest.raises(GradWatchError, match="Expected") as caught:
        GradWatch(**arguments)
    assert said in str(caught.value)


def test_logdir_that_is_a_file(tmp_path: Path) -> None:
    """A file in the place of the folder is refused at construction."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(GradWatchError, match="It is a file"):
        GradWatch(tmp_path / "runs")


def test_logdir_below_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be made is one warning; training goes on."""
    (tmp_path / "file").write_text("")
    watch = GradWatch(tmp_path / "file" / "runs")
    model = classifier()
    _fit(model, watch)
    assert int(model.optimizer.iterations) == STEPS
    assert watch.state["steps"] == STEPS
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "nothing is recorded" in warnings[0].getMessage()


def _strategy() -> Any:
    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    with strategy.scope():
        return classifier()


def _compiled_step() -> Any:
    class Own(keras.Model):
        @tf.function(jit_compile=True)
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    inputs = keras.Input((8,))
    model = Own(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    return model


def _frozen() -> Any:
    model = classifier()
    model.trainable = False
    return _recompiled(model)


def _recompiled(model: Any) -> Any:
    model.compile("sgd", "mse")
    return model


def _frozen_lazy() -> Any:
    model = classifier(built=False)
    model.trainable = False
    return _recompiled(model)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_strategy, "CentralStorageStrategy"),
        (_compiled_step, "a `tf.function`"),
        (_frozen, "trainable variable"),
        (_frozen_lazy, "trainable variable"),
    ],
)
@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_what_is_not_supported_is_refused(
    make: Any, said: str, tmp_path: Path
) -> None:
    """Before the first step, by name; model and disk stay as they were."""
    model = make()
    before = [w.numpy() for w in model.weights]
    with pytest.raises(GradWatchError, match=said):
        _fit(model, GradWatch(tmp_path))
    assert _traces_of_us(model) == []
    known_late = make is _frozen_lazy  # its variables come with the trace
    assert known_late or not list(tmp_path.iterdir())
    for now, then in zip(model.weights, before):
        np.testing.assert_array_equal(now, then)


def test_old_keras_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Keras before the oldest one supported is named."""
    monkeypatch.setattr(keras, "__version__", "3.4.1")
    with pytest.raises(UnsupportedError, match=r"Received: '3\.4\.1'"):
        _fit(classifier(), GradWatch(tmp_path))


def test_other_backends_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another backend than TensorFlow is named."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnsupportedError, match="Received: 'jax'"):
        _fit(classifier(), GradWatch(tmp_path))


def test_metrics_of_this_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Port 0 takes a free one, prints it, and serves during and after fit."""
    watch = GradWatch(tmp_path, metrics_port=0)
    pages: list[str] = []

    def get(*_: Any) -> None:
        assert watch.metrics_url is not None
        with urllib.request.urlopen(watch.metrics_url, timeout=5) as page:
            pages.append(page.read().decode())

    _fit(classifier(), watch, keras.callbacks.LambdaCallback(on_epoch_end=get))
    get()
    assert str(watch.metrics_url) in capsys.readouterr().err
    assert "gradwatch_run_state" in pages[0]
    assert watch.run is not None
    run = watch.run.id
    for said in (
        f'gradwatch_steps_total{{rank="0",run="{run}"}} {STEPS}.0',
        f'gradwatch_run_state{{run="{run}",state="finished"}} 1.0',
    ):
        assert said in pages[1]


def test_a_port_that_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; training goes on and the files are written."""
    first = GradWatch(tmp_path, metrics_port=0)
    _fit(classifier(), first)
    port = int(str(first.metrics_url).split(":")[2].split("/")[0])
    second = GradWatch(tmp_path, metrics_port=port)
    _fit(classifier(), second)
    assert second.metrics_url is None
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert f"Port {port}" in warnings[0].getMessage()
    assert second.path is not None
    assert (second.path / "state.json").exists()


def test_two_fits_at_once(tmp_path: Path) -> None:
    """Two models in two threads do not see each other."""
    watches = [GradWatch(tmp_path, name=n) for n in ("one", "two")]
    models = [classifier(), classifier()]
    errors: list[BaseException] = []

    def run(place: int) -> None:
        try:
            _fit(models[place], watches[place], epochs=3 + place)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert [w.state["steps"] for w in watches] == [3 * STEPS, 4 * STEPS]
    assert [w.findings for w in watches] == [[], []]
    assert [_traces_of_us(m) for m in models] == [[], []]


def test_missing_gradients_survive_keras_error(tmp_path: Path) -> None:
    """A loss that cuts every path is named although `fit` raises at once."""

    def accuracy(y: Any, p: Any) -> Any:
        hit = tf.equal(tf.argmax(p, axis=-1), tf.cast(y, tf.int64))
        return 1.0 - tf.cast(hit, tf.float32)

    model = classifier(GRAPH)
    model.compile("sgd", accuracy)
    watch = GradWatch(tmp_path)
    with pytest.raises(ValueError, match="No gradients provided"):
        _fit(model, watch)
    (finding,) = watch.findings
    assert (finding.rule, finding.severity) == ("missing_gradient", "critical")
    assert finding.evidence["trainable_variables"] == 6
    assert watch.path is not None
    assert "missing_gradient" in (watch.path / "findings.jsonl").read_text()


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
def test_some_missing_gradients(tmp_path: Path) -> None:
    """A layer that the loss does not see is a warning, and the fit goes on."""

    class Unused(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(3,), name="w")

        def call(self, inputs: Any) -> Any:
            return inputs

    layers = [keras.Input((8,)), Unused(name="idle"), keras.layers.Dense(3)]
    model = keras.Sequential(layers, name="net")
    model.compile("sgd", "mse")
    watch = GradWatch(tmp_path)
    x, _ = data(ROWS)
    model.fit(x, np.ones((len(x), 3)), verbose=0, callbacks=[watch])
    (finding,) = watch.findings
    assert (finding.severity, finding.subject) == ("warning", "net/idle/w")
    assert finding.first_step == 0
    assert watch.state["steps"] == STEPS


def test_a_replaced_train_function_is_told(tmp_path: Path) -> None:
    """Whoever takes our function out of the model makes a finding."""
    model = classifier()
    replace = keras.callbacks.LambdaCallback(
        on_train_begin=lambda _: model.make_train_function(force=True)
    )
    watch = GradWatch(tmp_path)
    _fit(model, watch, replace)
    assert [f.rule for f in watch.findings] == ["no_readings"]


def test_own_faults_do_not_stop_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault inside a probe is logged once; weights are those of plain fit."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("probe")

    monkeypatch.setattr("gradwatch.capture.shares.judge", fail)
    watched, plain = classifier(), classifier()
    watch = GradWatch(tmp_path)
    _fit(watched, watch)
    _fit(plain)
    for a, b in zip(watched.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [f.rule for f in watch.findings] == ["no_readings"]
    said = [r for r in caplog.records if "ZeroDivisionError" in r.getMessage()]
    assert len(said) == 1


def test_validation_and_epochs(tmp_path: Path) -> None:
    """Validation loss and metrics are kept, the run's story is told."""
    watch = GradWatch(tmp_path, name="story")
    options: dict[str, Any] = {
        "rows": 128,
        "epochs": 2,
        "validation_split": 0.25,
    }
    history = _fit(classifier(), watch, **options).history
    newest = {(s, n): v for s, n, v in watch.state["values"]}
    got = newest["validation_loss", ""]
    assert got == pytest.approx(history["val_loss"][-1])
    assert newest["validation_metric", "accuracy"] == pytest.approx(
        history["val_accuracy"][-1]
    )
    assert newest["metric", "accuracy"] == pytest.approx(
        history["accuracy"][-1]
    )
    assert "finished after 6 of 6 steps" in watch.summary()
    assert "no findings" in watch.summary()


def test_no_threads_are_left(tmp_path: Path) -> None:
    """After each fit all threads of the watcher are gone."""
    before = threading.active_count()
    watch = GradWatch(tmp_path)
    for _ in range(2):  # the second has X-rays
        _fit(classifier(), watch)
        assert threading.active_count() <= before
    gc.collect()


def test_import_is_light() -> None:
    """`import gradwatch` loads neither Keras nor TensorFlow, in 0.2 s."""
    code = (
        "import sys, time; t = time.perf_counter(); import gradwatch;"
        "t = time.perf_counter() - t;"
        "heavy = {'keras', 'tensorflow', 'tensorboard'} & set(sys.modules);"
        "assert not heavy, heavy; print(t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 2.0  # a bound for a busy machine


class Branches(keras.Model):
    """Builds one layer in training and another in inference, lazily."""

    def __init__(self) -> None:
        super().__init__()
        self.main = keras.layers.Dense(3)
        self.only_training = keras.layers.Dense(3)
        self.only_inference = keras.layers.Dense(3)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Adds what the branch gives."""
        extra = self.only_training if training else self.only_inference
        return self.main(inputs) + extra(inputs)


@pytest.mark.filterwarnings("ignore:`build..` was called on layer 'branches")
def test_branches_of_a_lazy_model(tmp_path: Path) -> None:
    """Layers are built as the train step builds them, and no others."""
    x, _ = data()  # with X-rays
    target = np.ones((len(x), 3))
    models = []
    for callbacks in ([], [GradWatch(tmp_path)]):
        keras.utils.set_random_seed(0)
        model = Branches()
        model.compile("adam", "mse")
        model.fit(x, target, verbose=0, shuffle=False, callbacks=callbacks)
        models.append(model)
    plain, watched = models
    assert len(watched.variables) == len(plain.variables) == 4
    for a, b in zip(watched.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_users_own_overrides_stay(tmp_path: Path) -> None:
    """An `apply` or `compute_loss` put on the instance is used and kept."""
    model = classifier()
    optimizer = model.optimizer
    original = optimizer.apply

    def freeze(grads: Any, variables: Any = None) -> Any:
        return original([tf.zeros_like(g) for g in grads], variables)

    object.__setattr__(optimizer, "apply", freeze)
    before = [w.numpy() for w in model.trainable_weights]
    _fit(model, GradWatch(tmp_path), epochs=2)  # two shapes, X-rays
    assert vars(optimizer)["apply"] is freeze
    for now, then in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_allclose(now, then, atol=1e-7)


def test_metrics_with_several_values(tmp_path: Path) -> None:
    """A metric that is a vector is kept entry by entry, and the run goes on."""
    model = classifier()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=[keras.metrics.F1Score(average=None)])
    x, y = data(ROWS)
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(x, np.eye(3)[y], epochs=2, verbose=0, callbacks=[watch])
    names = {n for s, n, _ in watch.state["values"] if s == "metric"}
    assert names == {"loss", "f1_score/0", "f1_score/1", "f1_score/2"}
    assert watch.state["phase"] == "finished"
    assert watch.state["steps"] == 2 * STEPS


def test_a_fit_that_died_is_noticed(tmp_path: Path) -> None:
    """Seconds after an exception elsewhere the run is said to be over."""
    model, watch = classifier(), GradWatch(tmp_path)
    with pytest.raises(KeyError):
        _fit(model, watch, Fails("on_epoch_end", KeyError()))
    deadline = time.monotonic() + 20
    while watch.state["phase"] != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert _traces_of_us(model) == []
    assert watch.state["reason"] == "fit ended without a word"
    while [t for t in threading.enumerate() if "gradwatch" in t.name]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_training_inside_a_callback(tmp_path: Path) -> None:
    """`train_on_batch` of a callback is left alone, and watching goes on."""
    model, watch = classifier(), GradWatch(tmp_path)
    batch = data(32)
    extra = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: model.train_on_batch(*batch)
    )
    _fit(model, watch, extra, epochs=3)
    assert watch.state["steps"] == 3 * STEPS
    assert watch.state["phase"] == "finished"
    assert int(model.optimizer.iterations) == 3 * STEPS + 3


def test_planned_steps_know_where_a_fit_begins(tmp_path: Path) -> None:
    """`initial_epoch` and steps of earlier fits are counted in."""
    model, watch = classifier(), GradWatch(tmp_path, xray_every_steps=0)
    _fit(model, watch, epochs=10, initial_epoch=8)
    assert watch.state["planned_steps"] == watch.state["steps"] == 2 * STEPS
    _fit(model, watch, epochs=2)
    assert watch.state["planned_steps"] == watch.state["steps"] == 4 * STEPS


def test_pauses_are_no_steps(tmp_path: Path) -> None:
    """Time between fits and in validation is not a step's time."""
    model, watch = classifier(), GradWatch(tmp_path, xray_every_steps=0)
    pause = keras.callbacks.LambdaCallback(
        on_test_begin=lambda _: time.sleep(0.7)
    )
    for _ in range(2):
        _fit(model, watch, pause, epochs=2, validation_split=0.5)
        time.sleep(0.7)
    steps = watch.state["step_duration"]
    assert sum(steps["counts"]) == 4 * 4 - 4  # all but the first of an epoch
    assert steps["sum"] < 2.5  # the pauses alone are 3.5 s


def test_an_optimizer_that_cannot_be_described(tmp_path: Path) -> None:
    """A `get_config` that fails costs a description, not the watching."""
    model, watch = classifier(), GradWatch(tmp_path, xray_every_steps=0)
    object.__setattr__(model.optimizer, "get_config", lambda: 1 / 0)
    for _ in range(2):
        _fit(model, watch)
    assert watch.state["steps"] == 2 * STEPS
    assert watch.state["optimizer"] == "Adam"


def test_layers_never_called_cost_nothing(tmp_path: Path) -> None:
    """Eagerly, a layer that stays unbuilt does not double the forward pass."""
    calls = []

    class Counts(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            calls.append(1)
            return inputs

    inner = [keras.Input((8,)), Counts(), keras.layers.Dense(3)]
    model = keras.Sequential(inner)
    model.spare = keras.layers.Dense(2)
    model.compile("sgd", "mse", run_eagerly=True)
    calls.clear()
    x, _ = data(ROWS)
    watch = GradWatch(tmp_path)
    model.fit(x, np.ones((ROWS, 3)), verbose=0, callbacks=[watch])
    assert len(calls) <= STEPS + 1


def test_a_healthy_run_says_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run without findings logs where it is recorded, and no more."""
    caplog.set_level("INFO")
    model, watch = classifier(), GradWatch(tmp_path)
    for _ in range(2):
        _fit(model, watch, validation_split=0.2)
    said = [r for r in caplog.records if r.name.startswith("gradwatch")]
    assert [r.levelname for r in said] == ["INFO"]
