"""What is left of a train function once it has been traced."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradwatch import GradWatch
from gradwatch.capture import function
from tests.capture.test_fit import Recorder
from tests.models import (
    BATCH,
    GRAPH,
    MODES,
    Mode,
    assert_same,
    at_length,
    classifier,
    data,
    fit,
    mostly,
)


class Graphs(keras.losses.Loss):
    """Remembers the graphs that it is traced into, and the outermost ones."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[weakref.ref[Any]] = []

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """See Keras."""
        graph: Any = tf.compat.v1.get_default_graph()
        while isinstance(graph, FuncGraph):
            self.seen.append(weakref.ref(graph))
            graph = graph.outer_graph
        return tf.reduce_mean(tf.square(y_pred), -1)


class Living(keras.callbacks.Callback):
    """Counts the graphs that are left after each batch."""

    def __init__(self, graphs: Graphs) -> None:
        super().__init__()
        self.graphs, self.left = graphs, -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """See Keras."""
        gc.collect()
        self.left = sum(graph() is not None for graph in self.graphs.seen)


@pytest.mark.parametrize("mode", mostly(MODES[:4]), ids=str)
def test_no_graph_is_kept(mode: Mode, tmp_path: Any, monkeypatch: Any) -> None:
    """Neither the everyday step's nor that of its X-ray."""
    monkeypatch.setattr(function, "_MANY", 0)
    model = classifier(mode)
    graphs = Graphs()
    living = Living(graphs)
    model.compile("adam", graphs, **mode._asdict())
    fit(model, GradWatch(tmp_path, xray_every_steps=2), living)
    assert len(graphs.seen) >= 4
    assert living.left == 0


def test_plain_keras_keeps_them() -> None:
    """Else the test above would prove nothing."""
    model = classifier()
    graphs = Graphs()
    living = Living(graphs)
    model.compile("adam", graphs, jit_compile=False)
    fit(model, living)
    assert living.left > 0


def test_functions_of_the_users_keep_theirs(
    tmp_path: Any, monkeypatch: Any
) -> None:
    """What the model calls may be called, and traced into others, later."""
    monkeypatch.setattr(function, "_MANY", 0)
    inner = tf.function(lambda y: tf.reduce_mean(tf.square(y), -1))

    class Calls(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return inner(y_pred)

    model = classifier()
    model.compile("adam", Calls(), jit_compile=False)
    fit(model, GradWatch(tmp_path, xray_every_steps=2))
    (traced,) = inner._list_all_concrete_functions()
    assert traced.inference_fn.graph is traced.graph


@pytest.mark.parametrize("mode", [GRAPH, *at_length([MODES[3]])], ids=str)
def test_data_of_another_kind(mode: Mode, tmp_path: Any) -> None:
    """It is traced again, by Keras' rules, and then goes on with both."""
    x, y = data()
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    kinds = [
        rows.batch(BATCH, drop_remainder=True),
        rows.batch(BATCH),
        rows.batch(8, drop_remainder=True),
        rows.batch(16, drop_remainder=True),
        rows.batch(BATCH, drop_remainder=True),
    ]
    plain, watched = classifier(mode, drop=0.0), classifier(mode, drop=0.0)
    recorder = Recorder()
    watch = GradWatch(tmp_path, xray_every_steps=0, sinks=[recorder])
    for kind in kinds:
        fit_of(plain, kind)
        fit_of(watched, kind, watch)
    if not mode.jit_compile:
        assert_same(watched, plain)
    assert recorder.steps == list(range(sum(len(kind) for kind in kinds)))


def fit_of(model: Any, rows: Any, *callbacks: Any) -> None:
    """One epoch on a data set."""
    model.fit(rows, verbose=0, shuffle=False, callbacks=[*callbacks])


class Fails(keras.losses.Loss):
    """Its operation fails once a target of 7 comes."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """See Keras."""
        with tf.control_dependencies([tf.debugging.assert_less(y_true, 7.0)]):
            return tf.reduce_mean(tf.square(y_pred), -1)


def test_an_error_names_its_line_as_ever(
    tmp_path: Any, monkeypatch: Any
) -> None:
    """The runtime knows it, although no graph is left."""
    monkeypatch.setattr(function, "_MANY", 0)
    told = []
    for callbacks in [], [GradWatch(tmp_path, xray_every_steps=0)]:
        x, y = data()
        y[5 * BATCH] = 7
        model = classifier()
        model.compile("adam", Fails(), jit_compile=False)
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            model.fit(
                x, y, BATCH, verbose=0, shuffle=False, callbacks=callbacks
            )
        told.append(str(error.value))
    for message in told:
        assert "defined at (most recent call last)" in message
        assert "test_function.py" in message


def test_calls_are_counted(tmp_path: Any) -> None:
    """TensorFlow warns where most calls of a function trace it: not here."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    try:
        for i in range(7):
            watch = GradWatch(tmp_path / str(i), xray_every_steps=0)
            fit(classifier(), watch)
    finally:
        logger.removeHandler(handler)
    assert not [text for text in said if "retracing" in text]


def test_eager_functions_are_run_eagerly(tmp_path: Any) -> None:
    """The setting counts from the next step on, as it does for Keras."""
    ran: list[bool] = []

    class Sees(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            ran.append(tf.executing_eagerly())
            return tf.reduce_mean(tf.square(y_pred), -1)

    class Switches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 4:
                ran.clear()
                tf.config.run_functions_eagerly(True)

    model = classifier()
    model.compile("adam", Sees(), jit_compile=False)
    try:
        fit(model, GradWatch(tmp_path, xray_every_steps=0), Switches())
    finally:
        tf.config.run_functions_eagerly(False)
    assert ran == [True] * 12
