"""What an autopsy names: operation, layer, line, and who is to blame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from gradwatch import GradWatch
from gradwatch.autopsy import diagnose
from tests.autopsy.origins import ORIGINS


def _variables(model: Any) -> list[Any]:
    each = [*model.variables, *model.optimizer.variables]
    return [v.numpy() for v in each]


class InFunction(layers.Dropout):
    """Drops in a function of its own."""

    call = tf.function(layers.Dropout.call)


_XLA = {
    "chosen root",
    "custom gradient",
    "distance",
    "inner function",
    "inputs",
    "large",
    "recurrent",
    "weights",
}
"""One of each kind; the others are for `make acceptance`."""


def _cases() -> Iterator[Any]:
    for name in ORIGINS:
        yield pytest.param(name, False, id=f"{name}, graph")
        late = () if name in _XLA else (pytest.mark.acceptance,)
        yield pytest.param(name, True, id=f"{name}, xla", marks=late)


@pytest.mark.parametrize(("name", "jit"), list(_cases()))
def test_origins_are_named(name: str, jit: bool) -> None:
    """The first origin, not what followed from it; and nothing is changed."""
    case = ORIGINS[name]
    model, batch = case.make()
    model.compile(model.optimizer, model.loss, jit_compile=jit)
    model._symbolic_build(data_batch=batch)
    before = _variables(model)
    found = diagnose(model, batch)
    assert found.operation in case.operation
    assert found.phase == case.phase
    assert found.verdict == case.verdict
    # Keras numbers layers of a kind, over all tests of a process.
    layer = found.layer.rstrip("0123456789").removesuffix("_")
    assert layer.endswith(case.layer)
    assert bool(found.layer) == bool(case.layer)
    line = "" if found.source is None else found.source.text
    assert line.endswith("# here") is case.line
    mode = case.only or ("xla" if jit else "graph")
    assert found.mode == mode
    assert found.reproducible == (mode == ("xla" if jit else "graph"))
    for old, new in zip(before, _variables(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_report_says_it_all() -> None:
    """Headline, values, examples, verdict and advice, as text and as data."""
    model, batch = ORIGINS["attention"].make()
    model._symbolic_build(data_batch=batch)
    found = diagnose(model, batch)
    assert found.samples == [0]
    text = found.to_markdown()
    assert found.headline() in text
    assert "Softmax is not finite in sequential" in text
    assert "return tf.nn.softmax(scores)  # here" in text
    assert "-inf at [0, 0]" in text
    assert "Examples of the batch: 0." in text
    assert "all masked" in text
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["source"]["function"] == "call"
    assert written["verdict"] == "model"


def test_the_turn_of_a_loop_and_the_term_are_told() -> None:
    """A recurrent cell fails at its sixth turn; a marked term by its name."""
    model, batch = ORIGINS["recurrent"].make()
    model._symbolic_build(data_batch=batch)
    assert diagnose(model, batch).turn == 5
    model, batch = ORIGINS["marked"].make()
    model._symbolic_build(data_batch=batch)
    assert diagnose(model, batch).component == "entropy"


@pytest.mark.parametrize("kind", [layers.Dropout, InFunction])
def test_float64_draws_the_same_numbers(kind: Any) -> None:
    """What dropout drops is dropped in float64 as well: no lack of digits."""
    dropout = kind(0.5, seed=0)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), dropout])
    model.compile("sgd", lambda y, p: tf.reduce_mean(1.0 / p))
    batch = np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)
    model._symbolic_build(data_batch=batch)
    (seed,) = model.non_trainable_variables
    seed.assign([0, 0])  # drops the only unit; in float64 it would not
    assert diagnose(model, batch).verdict == "model"


def test_a_finite_step_is_said_to_be_finite() -> None:
    """Masks of -inf in a healthy step are no origin."""
    model, batch = ORIGINS["inputs"].make()
    fine = np.nan_to_num(batch[0]), batch[1]
    model._symbolic_build(data_batch=fine)
    found = diagnose(model, fine)
    assert found.verdict == "not reproducible"
    assert "nothing was found" in found.headline()


def test_what_tensorflow_cannot_run_is_not_called_finite() -> None:
    """XLA knows no gradient of a branch that a function of its own takes."""

    @tf.function(jit_compile=True)
    def chosen(p: Any) -> Any:
        return tf.cond(tf.reduce_sum(p) > 9, lambda: tf.sqrt(p), lambda: p)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("sgd", lambda y, p: tf.reduce_mean(chosen(p)))
    batch = np.ones((8, 4), np.float32), np.ones((8, 2), np.float32)
    model._symbolic_build(data_batch=batch)
    found = diagnose(model, batch)
    assert found.verdict == "unfinished"
    assert "cannot be replayed (InvalidArgumentError)" in found.headline()


def test_a_watched_model_is_replayed_after_its_stop(tmp_path: Path) -> None:
    """What `fit` has left is the model before the bad step."""
    model, (x, y) = ORIGINS["distance"].make()
    model.fit(x, y, verbose=0, callbacks=[GradWatch(tmp_path)])
    found = diagnose(model, (x, y))
    assert (found.operation, found.phase) == ("Sqrt", "backward")
    assert found.reproducible
