"""`check`: what is wrong is told, and nothing is changed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from sklearn.datasets import load_digits

import gradwatch
from gradwatch import GradWatchError, check
from tests.models import assert_same, classifier, data


def _model(loss: Any, *, built: bool = True) -> Any:
    keras.utils.set_random_seed(0)
    shape = [keras.Input((64,))] if built else []
    model = keras.Sequential(
        [
            *shape,
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dropout(0.2, seed=1),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(keras.optimizers.Adam(), loss)
    return model


def _digits() -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def test_a_healthy_program_is_unchanged() -> None:
    """A fit makes of it bitwise what it makes of one never checked."""
    x, y = data()
    checked, other = classifier(), classifier()
    assert check(checked, x, y) == []
    for model in (checked, other):
        model.fit(x, y, verbose=0, shuffle=False)
    assert_same(checked, other)


def test_a_model_that_is_built_by_its_first_batch() -> None:
    """Weights and optimizer are as they began; a Dataset will do as well."""
    x, y = _digits()
    model = _model("sparse_categorical_crossentropy", built=False)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    assert check(model, batches) == []
    assert int(model.optimizer.iterations) == 0
    assert all(np.all(v == 0) for v in model.optimizer._momentums)
    assert np.all(model.get_layer("hidden").bias == 0)


def test_faults_of_the_set_up_are_told() -> None:
    """A loss without gradient, NaN in the inputs."""
    x, y = _digits()

    def accuracy(y_true: Any, p: Any) -> Any:
        right = ops.equal(ops.argmax(p, -1), ops.cast(y_true, "int64"))
        return 1.0 - ops.cast(right, "float32")

    (finding,) = check(_model(accuracy), x, y)
    assert (finding.rule, finding.severity) == ("missing_gradient", "critical")
    broken = x.copy()
    broken[70, 3] = np.nan
    model = _model("sparse_categorical_crossentropy")
    (finding,) = check(model, broken, y)
    assert (finding.rule, finding.subject) == ("nonfinite_batch", "inputs")
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_bad_arguments_are_told() -> None:
    """What was expected, what was received, what to do."""
    x, y = _digits()
    with pytest.raises(GradWatchError, match="Call `model"):
        check(keras.Sequential([keras.layers.Dense(1)]), x, y)
    with pytest.raises(GradWatchError, match="Take some examples"):
        check(_model("mse"), (b for b in [(x, y)]))
    assert gradwatch.check is check
