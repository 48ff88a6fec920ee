"""Where the way from a variable to the loss is cut, by operation and line."""

from __future__ import annotations

import inspect
import json
import linecache
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import gradwatch.capture.measure
import gradwatch.provenance.cuts
import gradwatch.provenance.lines
from gradwatch import GradWatch
from gradwatch.provenance import find_cuts
from gradwatch.records import Anatomy, Cut, Finding
from gradwatch.strict_json import dumps, read_anatomy
from gradwatch.testing import gradient_flow
from gradwatch.testing.gradient_flow import FAULTY
from tests.models import GRAPH, Mode, classifier

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")

GRAPHS = (GRAPH, Mode(steps_per_execution=32), Mode(True, 32))
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


@tf.function
def inner_round(x: Any) -> Any:
    """A function of the user's."""
    return tf.round(x)


def branch(x: Any) -> Any:
    """Rounded in both branches."""
    return tf.cond(x[0, 0] > 9.0, lambda: tf.floor(x), lambda: tf.round(x))


def loop(x: Any) -> Any:
    """Sine of sine."""
    return tf.while_loop(
        lambda i, _: i < 2, lambda i, y: (i + 1, tf.sin(y)), (0, x)
    )[1]


@tf.custom_gradient
def straight_through(x: Any) -> Any:
    """Rounds, and passes gradients on as they are."""
    return tf.round(x), lambda upstream: upstream


def numpy_code(x: Any) -> Any:
    """Twice the values, by NumPy."""
    return tf.numpy_function(lambda array: 2 * array, [x], tf.float32)


def python_code(x: Any) -> Any:
    """Twice the values, by TensorFlow inside of Python."""
    return tf.py_function(lambda tensor: 2 * tensor, [x], tf.float32)


def float_(x: Any) -> Any:
    """Back to float."""
    return tf.cast(x, tf.float32)


FACTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "argmax": (lambda x: float_(tf.argmax(x, -1)), "argmax"),
    "argmin": (lambda x: float_(tf.argmin(x, -1)), "argmax"),
    "top_k indices": (lambda x: float_(tf.math.top_k(x)[1]), "argmax"),
    "argsort": (lambda x: float_(tf.argsort(x)), "argmax"),
    "round": (tf.round, "round"),
    "rint": (tf.math.rint, "round"),
    "floor": (tf.floor, "round"),
    "ceil": (tf.math.ceil, "round"),
    "//": (lambda x: x // 2.0, "round"),
    "sign": (tf.sign, "zero"),
    "cast to int": (lambda x: float_(tf.cast(x, tf.int32)), "cast"),
    "cast to bool": (lambda x: float_(tf.cast(x, tf.bool)), "cast"),
    "bitcast": (
        lambda x: tf.bitcast(tf.bitcast(x, tf.int32), tf.float32),
        "cast",
    ),
    "greater": (lambda x: float_(x > 0.0), "comparison"),
    "less": (lambda x: float_(x <= 0.0), "comparison"),
    "equal": (lambda x: float_(tf.equal(x, 1.0)), "comparison"),
    "is_nan": (lambda x: float_(tf.math.is_nan(x)), "comparison"),
    "where": (lambda x: tf.where(x > 0.0, 1.0, 0.0), "comparison"),
    "any": (lambda x: float_(tf.reduce_any(x > 0.0)), "comparison"),
    "stop_gradient": (tf.stop_gradient, "stop_gradient"),
    "numpy_function": (numpy_code, "numpy_function"),
    "bucketize": (
        lambda x: float_(tf.raw_ops.Bucketize(input=x, boundaries=[0.0])),
        "not_differentiable",
    ),
    "shuffle": (tf.random.shuffle, "not_differentiable"),
    "function": (inner_round, "round"),
    "branches": (branch, "round"),
    "its shape": (lambda x: float_(tf.shape(x)), "unused"),
    "its zeros": (lambda x: tf.zeros_like(x) + 1.0, "unused"),
    "not at all": (lambda x: tf.ones([3]), "unused"),
    "py_function": (python_code, "value"),
    "mod": (lambda x: x % 2.0, "value"),
    "cast to half": (lambda x: float_(tf.cast(x, tf.float16)), "value"),
    "top_k values": (lambda x: tf.math.top_k(x)[0], "value"),
    "sort": (lambda x: tf.sort(x), "value"),
    "masked": (lambda x: tf.where(x > 0.0, x, 0.0), "value"),
    "loop": (loop, "value"),
    "own gradient": (straight_through, "value"),
    "clip": (lambda x: tf.clip_by_value(x, -9.0, 9.0), "value"),
}
"""What TensorFlow 2.21 does: a kind of cut means that the gradient is None."""


def cuts_of(
    function: Callable[[Any], Any], *, zero: bool = False
) -> tuple[tuple[Cut, ...], Any]:
    """The cuts in a graph of `function`, and the gradient that it has."""
    variable = tf.Variable(X)
    found: list[Cut] = []

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(1.0 * variable))
        gradient = tape.gradient(loss, variable)
        found.extend(find_cuts([loss], {"v": variable.handle}, zero=zero))
        return () if gradient is None else gradient

    gradient = step()
    return tuple(found), None if gradient == () else gradient.numpy()


@pytest.mark.parametrize("name", FACTS)
def test_what_tensorflow_differentiates(name: str) -> None:
    """A cut is found where the gradient is None, and it is of this kind."""
    function, kind = FACTS[name]
    cuts, gradient = cuts_of(function)
    if kind in ("value", "zero"):
        assert gradient is not None
        assert gradient.any() == (kind == "value")
        assert {cut.kind for cut in cuts} <= {"unrecorded"}
    else:
        assert gradient is None
        assert [cut.kind for cut in cuts] == [kind]


def test_zero_derivatives_are_found_when_asked_for() -> None:
    """A sign has a gradient, which is zero, so it is no cut but for zeros."""
    ((cut,), gradient) = cuts_of(tf.sign, zero=True)
    assert gradient is not None
    assert (cut.kind, cut.operation) == ("round", "Sign")
    assert cuts_of(lambda x: x + tf.sign(x), zero=True)[0] == ()


def test_the_cut_is_not_before_another_way() -> None:
    """A comparison of what gradients reach does not stand for what cuts."""

    def function(x: Any) -> Any:
        y = tf.stop_gradient(tf.sin(x)) + 1.0
        return tf.where(y + 1.0 > 0.0, straight_through(y), 0.0)

    ((cut,), _) = cuts_of(function)
    assert cut.kind == "stop_gradient"


# Losses and layers that cut, each on one line of its own.


def index(y: Any, p: Any) -> Any:
    """Error rate."""
    said = tf.argmax(p, -1)
    return 1.0 - float_(tf.equal(said, tf.cast(y, tf.int64)))


def keras_index(y: Any, p: Any) -> Any:
    """The same with Keras' operations."""
    said = ops.argmax(p, axis=-1)
    return 1.0 - ops.cast(ops.equal(said, ops.cast(y, said.dtype)), "float32")


@tf.function
def compiled_index(y: Any, p: Any) -> Any:
    """The same, compiled, with Python that becomes graph."""
    if tf.reduce_sum(p) > 1e9:
        p = p + 1.0
    said = tf.argmax(p, -1)
    return 1.0 - float_(tf.equal(said, tf.cast(y, tf.int64)))


def rounded(y: Any, p: Any) -> Any:
    """Squared error of whole answers."""
    whole = ops.round(p[:, 0])
    return ops.square(whole - ops.cast(y, "float32"))


def whole(y: Any, p: Any) -> Any:
    """Squared error of integers."""
    number = ops.cast(p[:, 0], "int32")
    return ops.square(ops.cast(number, "float32") - ops.cast(y, "float32"))


def above(y: Any, p: Any) -> Any:
    """Whether the first class gets more than half."""
    return tf.reduce_mean(float_(p[:, 0] > 0.5), keepdims=True)


def scored(y: Any, p: Any) -> Any:
    """A score that NumPy computes."""
    score = tf.numpy_function(lambda a: a.mean(-1), [p], tf.float32)
    return tf.ensure_shape(score, [None])


def stopped(y: Any, p: Any) -> Any:
    """A loss of what is taken as given."""
    return tf.reduce_mean(tf.stop_gradient(p), -1)


LOSSES = {
    index: ("argmax", "ArgMax"),
    keras_index: ("argmax", "ArgMax"),
    compiled_index: ("argmax", "ArgMax"),
    rounded: ("round", "Round"),
    whole: ("cast", "Cast"),
    above: ("comparison", "Greater"),
    scored: ("numpy_function", "PyFunc"),
    stopped: ("stop_gradient", "StopGradient"),
}
CUTTING = {
    "ArgMax": "argmax(p",
    "Round": "ops.round(",
    "Cast": 'ops.cast(p[:, 0], "int32")',
    "Greater": "> 0.5",
    "PyFunc": "tf.numpy_function(",
    "StopGradient": "tf.stop_gradient(p)",
}


def assert_line(cut: Cut, function: Any, text: str) -> None:
    """Asserts that a Cut names the line of `function` that has `text`."""
    function = inspect.unwrap(getattr(function, "python_function", function))
    lines, first = inspect.getsourcelines(function)
    (place,) = [i for i, line in enumerate(lines, first) if text in line]
    assert cut.file == inspect.getsourcefile(function)
    assert (cut.line, cut.function) == (place, function.__name__)
    assert cut.code == linecache.getline(cut.file, place).strip()


def finding(tmp_path: Path, model: Any, *data: Any) -> Finding:
    """The one finding of an epoch."""
    watch = GradWatch(tmp_path, xray_every_steps=0)
    try:
        model.fit(*data, verbose=0, callbacks=[watch])
    except ValueError as error:
        assert "No gradients provided" in str(error)  # noqa: PT017
    rules = ("missing_gradient", "frozen_variable")
    (found,) = [f for f in watch.findings if f.rule in rules]
    assert watch.path is not None
    kept = json.loads((watch.path / "anatomy.json").read_text())
    assert set(read_anatomy(kept).cuts) == set(cuts_in(found))
    return found


def cuts_in(found: Finding) -> list[Cut]:
    """The cuts that a finding's evidence holds."""
    cuts = found.evidence["cuts"]
    return [Cut(**{**c, "variables": tuple(c["variables"])}) for c in cuts]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_a_loss_that_cuts(loss: Any, tmp_path: Path) -> None:
    """`fit` raises, and the finding names operation and line of the loss."""
    model = classifier(built=False)
    model.compile("sgd", loss)
    found = finding(tmp_path, model, X, np.arange(64) % 3)
    (cut,) = cuts_in(found)
    assert (cut.kind, cut.operation) == LOSSES[loss]
    assert cut.variables == tuple(found.evidence["missing"])
    assert len(cut.variables) == 6
    assert_line(cut, loss, CUTTING[cut.operation])
    assert found.severity == "critical"
    assert f"`{cut.operation}`" in found.message
    assert f"test_provenance.py:{cut.line}: `{cut.code}`" in found.message


class Fires(layers.Layer):
    """Neurons that fire or do not."""

    def build(self, shape: Any) -> None:
        """Makes the weights."""
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, inputs: Any) -> Any:
        """Zeros and ones."""
        drive = ops.matmul(inputs, self.kernel)
        return ops.where(drive > 0.0, 1.0, 0.0)


@pytest.mark.parametrize("mode", GRAPHS, ids=str)
def test_a_layer_that_cuts(mode: Mode, tmp_path: Path) -> None:
    """The layer is named with the line, in each mode that has a graph."""
    stack = [keras.Input((4,)), layers.Dense(4, name="first")]
    stack += [Fires(name="fires"), layers.Dense(1, name="last")]
    model = keras.Sequential(stack, name="net")
    model.compile("sgd", "mse", **mode._asdict())
    found = finding(tmp_path, model, X, X[:, :1])
    (cut,) = cuts_in(found)
    assert (cut.kind, cut.layer) == ("comparison", "net/fires")
    assert cut.variables == (
        "net/first/kernel",
        "net/first/bias",
        "net/fires/kernel",
    )
    assert_line(cut, Fires.call, "drive > 0.0")
    assert (found.severity, found.subject) == ("warning", "net/first/kernel")


def test_nothing_is_known_of_an_eager_step(tmp_path: Path) -> None:
    """Without a graph the finding comes without a cut."""
    model = classifier(Mode(run_eagerly=True))
    model.compile("sgd", index, run_eagerly=True)
    found = finding(tmp_path, model, np.tile(X, 2), np.arange(64) % 3)
    assert found.evidence["cuts"] == []
    assert "does not depend on any" in found.message


def test_a_layer_of_keras_has_no_line(tmp_path: Path) -> None:
    """What a functional model calls is named by its layer; not `fit`'s line."""
    image = keras.Input((4,))
    code = layers.Dense(3, name="encoder")(image)
    code = layers.Lambda(ops.stop_gradient, name="detach")(code)
    model = keras.Model(image, layers.Dense(1, name="head")(code))
    model.compile("sgd", "mse")
    found = finding(tmp_path, model, X, X[:, :1])
    (cut,) = cuts_in(found)
    assert (cut.kind, cut.layer, cut.line) == ("stop_gradient", "detach", 0)
    assert "`StopGradient` in layer detach stops it" in found.message
    assert "Remove it" in found.advice


def test_a_cut_in_front_of_a_loop(tmp_path: Path) -> None:
    """A recurrent layer's loop is looked through."""
    stack = [keras.Input((None, 4)), layers.Dense(3, name="first")]
    stack += [layers.Lambda(lambda t: ops.floor(t), name="steps")]
    stack += [layers.GRU(3, name="memory"), layers.Dense(1, name="last")]
    model = keras.Sequential(stack, name="net")
    model.compile("sgd", "mse")
    found = finding(tmp_path, model, X[:, None].repeat(3, 1), X[:, :1])
    (cut,) = cuts_in(found)
    assert (cut.kind, cut.operation) == ("round", "Floor")
    assert cut.layer == "net/steps"
    assert cut.variables == ("net/first/kernel", "net/first/bias")
    assert 'layers.Lambda(lambda t: ops.floor(t), name="steps")' in cut.code


class Towers(keras.Model):
    """Two towers; what a test does with them is in `train_step`."""

    def __init__(self) -> None:
        super().__init__(name="towers")
        self.left = layers.Dense(1, name="left")
        self.right = layers.Dense(1, name="right")

    def call(self, inputs: Any) -> Any:
        """The left one's answer."""
        answer = self.left(inputs)
        self.right(inputs)
        return answer

    def step(self, tape: Any, losses: list[Any], parts: list[Any]) -> Any:
        """Applies what the losses give for the parts."""
        for loss, part in zip(losses, parts, strict=True):
            weights = part.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": losses[0]}


class TwoLosses(Towers):
    """One loss of a persistent tape is cut."""

    def train_step(self, data: Any) -> Any:
        """Trains both."""
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            good = tf.reduce_mean((self.left(x) - y) ** 2)
            bad = tf.reduce_mean((tf.round(self.right(x)) - y) ** 2)
        weights = self.trainable_variables
        both = [tape.gradient(loss, weights) for loss in (good, bad)]
        total = [a if b is None else b for a, b in zip(*both, strict=True)]
        self.optimizer.apply(total, weights)
        return {"loss": good}


class Unasked(Towers):
    """One tower is forgotten."""

    def train_step(self, data: Any) -> Any:
        """Trains one."""
        x, y = data
        with tf.GradientTape() as tape:
            error = (self.left(x) + self.right(x) - y) ** 2
        return self.step(tape, [error], [self.left])


class Unapplied(Towers):
    """The gradient of one tower is clipped, and then forgotten."""

    def train_step(self, data: Any) -> Any:
        """Trains one."""
        x, y = data
        with tf.GradientTape() as tape:
            error = (self.left(x) + self.right(x) - y) ** 2
        weights = self.trainable_variables
        gradients = tape.gradient(error, weights)
        clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
        self.optimizer.apply(clipped[:2], weights[:2])
        return {"loss": error}


class Averaged(Towers):
    """One tower is a slow average of the other one."""

    def train_step(self, data: Any) -> Any:
        """Trains one, assigns the other."""
        x, y = data
        with tf.GradientTape() as tape:
            error = (self.left(x) - y) ** 2
        logs = self.step(tape, [error], [self.left])
        for mine, other in zip(self.right.weights, self.left.weights):
            mine.assign(0.9 * mine + 0.1 * other)
        return logs


class Unrecorded(Towers):
    """One tower answers before the tape runs."""

    def train_step(self, data: Any) -> Any:
        """Trains both, it seems."""
        x, y = data
        early = self.right(x)
        with tf.GradientTape() as tape:
            error = (self.left(x) + early - y) ** 2
        return self.step(tape, [error], [self])


TOWERS: dict[Any, tuple[str, str, Any, str]] = {
    Towers: ("unused", "towers/right", Towers.call, "self.right(inputs)"),
    TwoLosses: ("round", "", TwoLosses.train_step, "tf.round("),
    Unasked: ("unasked", "", None, ""),
    Unapplied: ("unapplied", "", None, ""),
    Unrecorded: (
        "unrecorded",
        "towers/right",
        Unrecorded.train_step,
        "early = self",
    ),
}


@pytest.mark.parametrize("kind", TOWERS, ids=lambda kind: kind.__name__)
def test_own_train_steps(kind: Any, tmp_path: Path) -> None:
    """Each loss counts for what a tape was asked for of it."""
    model = kind()
    model(X[:1])
    model.compile("sgd", "mse")
    found = finding(tmp_path, model, X, X[:, :1])
    (cut,) = cuts_in(found)
    assert (cut.kind, cut.layer) == TOWERS[kind][:2]
    assert cut.variables == ("towers/right/kernel", "towers/right/bias")
    frozen = cut.kind in ("unasked", "unapplied")
    assert found.rule == ("frozen_variable" if frozen else "missing_gradient")
    if frozen:
        assert cut.file == ""
    else:
        assert_line(cut, *TOWERS[kind][2:])
    assert "(towers/right/kernel, towers/right/bias)" in found.message


def test_weights_that_the_step_assigns_itself(tmp_path: Path) -> None:
    """They lack nothing, and are not frozen."""
    model = Averaged()
    model(X[:1])
    model.compile("sgd", "mse")
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(X, X[:, :1], verbose=0, callbacks=[watch])
    assert watch.findings == []
    assert watch.path is not None
    kept = json.loads((watch.path / "anatomy.json").read_text())
    (cut,) = read_anatomy(kept).cuts
    assert cut.kind == "assigned"


def test_a_healthy_model_is_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is looked for where every variable has a gradient."""
    calls: list[Any] = []
    monkeypatch.setattr(
        gradwatch.capture.measure, "find_cuts", lambda *a: calls.append(a)
    )
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(X, X[:, :1], verbose=0, callbacks=[watch])
    assert calls == []
    assert watch.findings == []


def test_a_fault_of_ours_is_no_fault_of_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If the search fails, the finding comes without a cut."""

    def broken(place: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(gradwatch.provenance.cuts, "sources", broken)
    model = classifier(built=False)
    model.compile("sgd", index)
    with caplog.at_level(logging.DEBUG, "gradwatch.capture"):
        found = finding(tmp_path, model, X, np.arange(64) % 3)
    assert found.evidence["cuts"] == []
    assert "No cut was found" in caplog.text


def test_older_anatomies_have_no_cuts() -> None:
    """A file from before there were cuts is read."""
    data = json.loads(dumps(Anatomy(model="net")))
    del data["cuts"]
    assert read_anatomy(data) == Anatomy(model="net")


class Once(keras.callbacks.Callback):
    """Ends a fit after its first batch."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """The step is traced in this batch."""
        self.model.stop_training = True


SCENARIOS: dict[str, tuple[str, str, Any, str]] = {
    "accuracy_as_loss": (
        "argmax",
        "ArgMax",
        gradient_flow._error_rate,
        "ops.argmax(y_pred",
    ),
    "counts_cast_to_integers": ("cast", "Cast", None, '"int32"'),
    "f1_of_rounded": ("round", "Round", None, "answer = said(y_pred)"),
    "step_neurons": ("comparison", "Greater", gradient_flow._fires, "x > 0"),
    "detached_encoder": ("stop_gradient", "StopGradient", None, ""),
    "forgotten_tower": (
        "unused",
        "",
        gradient_flow._Towers.call,
        "self.colour(inputs",
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_of_the_zoo(name: str, tmp_path: Path) -> None:
    """Each program with a missing gradient is named with its line."""
    (scenario,) = [s for s in FAULTY if s.name == name]
    watch = GradWatch(tmp_path, xray_every_steps=0)
    program = scenario.program()
    if scenario.raises:
        with pytest.raises(ValueError, match=scenario.raises):
            program.train([watch])
    else:
        program.train([watch, Once()])
    (found,) = [f for f in watch.findings if f.rule == "missing_gradient"]
    (cut,) = cuts_in(found)
    kind, operation, function, text = SCENARIOS[name]
    assert (cut.kind, cut.operation) == (kind, operation)
    assert text in cut.code
    assert scenario.subject in cut.variables[0]
    if function is not None:
        assert_line(cut, function, text)
    if name == "detached_encoder":
        assert (cut.layer, cut.file) == ("detach", "")
    else:
        assert cut.file == gradient_flow.__file__
    keras.backend.clear_session()


def signs(y: Any, p: Any) -> Any:
    """The share of answers on the wrong side."""
    side = tf.sign(p[:, 0])
    return 0.5 - 0.5 * tf.reduce_mean(float_(y) * side, keepdims=True)


@tf.function
def inner_signs(y: Any, p: Any) -> Any:
    """The same in a function."""
    side = tf.sign(p[:, 0])
    return 0.5 - 0.5 * tf.reduce_mean(float_(y) * side, keepdims=True)


def zeros_found(tmp_path: Path, model: Any, *data: Any) -> list[Finding]:
    """What is said of gradients that are zero."""
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model.fit(*data, verbose=0, callbacks=[watch])
    return [f for f in watch.findings if f.rule == "zero_gradient"]


@pytest.mark.parametrize("mode", GRAPHS, ids=str)
@pytest.mark.parametrize("loss", [signs, inner_signs])
def test_a_loss_that_is_flat(loss: Any, mode: Mode, tmp_path: Path) -> None:
    """All gradients are 0, and the finding names operation and line."""
    model = classifier(built=False)
    model.compile("sgd", loss, **mode._asdict())
    data = np.tile(X, (4, 1)), np.arange(256) % 2 * 2 - 1
    (found,) = zeros_found(tmp_path, model, *data)
    (cut,) = cuts_in(found)
    assert (cut.kind, cut.operation, cut.zero) == ("round", "Sign", True)
    assert cut.variables == tuple(found.evidence["zero"])
    assert_line(cut, loss, "tf.sign(")
    assert found.causes == ("loss_not_differentiable",)
    assert f"test_provenance.py:{cut.line}: `{cut.code}`" in found.message
    assert "has a derivative of 0 everywhere" in found.message
    assert "signs are flat" in found.advice


def test_a_layer_that_is_flat(tmp_path: Path) -> None:
    """The weights in front of it are named, those behind it are not."""
    stack = [keras.Input((4,)), layers.Dense(64, name="first")]
    stack += [layers.Lambda(ops.sign, name="side"), layers.Dense(1)]
    model = keras.Sequential(stack, name="net")
    model.compile("sgd", "mse")
    random = np.random.default_rng(1)
    data = random.normal(size=(2560, 4)), random.normal(size=2560)
    watch = GradWatch(tmp_path)
    model.fit(*data, verbose=0, callbacks=[watch])
    assert watch.path is not None
    kept = json.loads((watch.path / "anatomy.json").read_text())
    (cut,) = read_anatomy(kept).cuts
    assert (cut.layer, cut.zero) == ("net/side", True)
    assert cut.variables == ("net/first/kernel", "net/first/bias")
    (found,) = [f for f in watch.findings if f.rule == "zero_gradient"]
    assert found.subject == "net/first/kernel"
    assert cuts_in(found) == [cut]


def test_slopes_that_are_made_on_the_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The derivative of an absolute value has a sign: nothing is followed."""
    asked: list[Any] = []
    monkeypatch.setattr(
        gradwatch.capture.measure, "find_cuts", lambda *a, **k: asked.append(a)
    )
    model = classifier(built=False)
    model.compile("sgd", "mae")
    assert zeros_found(tmp_path, model, X, np.zeros((64, 3))) == []
    assert asked == []


def test_libraries_behind_a_link_are_none_of_the_users(tmp_path: Path) -> None:
    """A linked environment: frames name files by the way they were found."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "linked"
    link.symlink_to(tmp_path / "real")
    file = str(link / "__init__.py")
    assert gradwatch.provenance.lines._folder(file) == f"{link}/"
