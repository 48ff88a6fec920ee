"""Programs whose targets are not what the loss expects, or carry nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    diabetes,
    digit_ids,
    iris,
    prices,
    sine,
    wine,
)
from gradwatch.testing.programs import (
    accuracy,
    classify_tumours,
    dense_net,
    explained,
    fits,
    regress,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _species(loss: str, units: int, last: str, ids: Any = None) -> Program:
    model = dense_net(4, [16], units, last=last)
    data = Data(iris().x, iris().y if ids is None else ids(iris().y))
    judge, adam = accuracy(iris()), Adam(0.01)
    return fits(model, data, judge, loss=loss, optimizer=adam, epochs=30)


def _cultivars(targets: Any) -> Program:
    """Wines by cross-entropy between rows of probabilities."""
    model = dense_net(13, [16], 3, last="softmax")
    data, judge = Data(wine().x, targets(wine().y)), accuracy(wine())
    adam, loss = Adam(0.01), "categorical_crossentropy"
    return fits(model, data, judge, loss=loss, optimizer=adam, epochs=20)


def _pixels(white: float) -> Program:
    """An autoencoder of pixels from 0 to `white`, sigmoid, cross-entropy."""
    x = digit_ids().x
    model = dense_net(64, [32], 64, last="sigmoid")
    data, judge = Data(x, x * white), explained(Data(x, x))
    loss = "binary_crossentropy"
    return fits(model, data, judge, loss=loss, batch_size=64, epochs=12)


def _broadcast(flat: bool) -> Program:
    """A loss of one's own; targets `[n]` against outputs `[n, 1]`."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        if flat:
            y_true = ops.reshape(y_true, (-1,))
        return ops.mean(ops.square(y_true - y_pred))

    return regress(diabetes(), None, loss=loss, epochs=15)


def _shares(cast: bool) -> Program:
    """Shares in [0, 1) that are cast to integers before training."""
    truth = prices(0.0, 0.999)
    y = truth.y.astype(np.int64).astype(np.float32) if cast else truth.y
    data = Data(truth.x, y)
    options: Any = {"loss": "binary_crossentropy", "truth": truth}
    return regress(data, "sigmoid", **options)


def _integer_pixels(whole: bool) -> Program:
    """8-bit images are divided by 255 as integers: all become 0."""
    x, y = digit_ids()
    pixels = (x * 254).astype(np.uint8)
    data = Data((pixels // 255 if whole else pixels / 255).astype("f4"), y)
    model = dense_net(64, [64], 10, last="softmax")
    loss = "sparse_categorical_crossentropy"
    return fits(model, data, accuracy(data), loss=loss, batch_size=64)


def _reused_norm(kept: bool) -> Program:
    """Inputs are normalised within each example, of which there is one."""
    x, y = sine()
    axis = 0 if kept else 1
    centred = (x - x.mean(axis, keepdims=True)) / (
        x.std(axis, keepdims=True) + 1e-6
    )
    return regress(Data(centred, y), None, units=(32, 32), epochs=20)


def _ids(loss: str) -> Program:
    """Digits; their ids are a column of numbers."""
    x, y = digit_ids()
    model, data = dense_net(64, [64], 10, last="softmax"), Data(x, y[:, None])
    judge = accuracy(digit_ids())
    return fits(model, data, judge, loss=loss, batch_size=64, epochs=8)


def _same(ids: Any) -> Any:
    """Rows of probabilities, after one argmax too many: all of class 0."""
    return _one_hot(ids[:, None].argmax(-1))


def _one_hot(ids: Any) -> Any:
    return np.eye(3, dtype=np.float32)[ids]


FAULTY = (
    Scenario(
        "species_as_binary",
        "Three class ids in a binary cross-entropy with one output.",
        lambda: _species("binary_crossentropy", 1, "sigmoid"),
        rule="target_mismatch",
        subject="targets",
        also=("negative_loss", "output_mismatch"),
        fixed=lambda: _species("sparse_categorical_crossentropy", 3, "softmax"),
    ),
    Scenario(
        "ids_as_numbers",
        "Class ids by squares against ten probabilities.",
        lambda: _ids("mse"),
        rule="target_mismatch",
        subject="targets",
        also=("output_mismatch",),
        fixed=lambda: _ids("sparse_categorical_crossentropy"),
    ),
    Scenario(
        "signs_as_labels",
        "Labels -1 and 1 in a binary cross-entropy.",
        lambda: classify_tumours(
            "sigmoid", "binary_crossentropy", lambda y: 2 * y - 1
        ),
        rule="target_mismatch",
        subject="targets",
        also=("negative_loss",),
        fixed=lambda: classify_tumours("sigmoid", "binary_crossentropy"),
        costs=0.03,
    ),
    Scenario(
        "pixels_to_255",
        "An autoencoder by cross-entropy of pixels from 0 to 255.",
        lambda: _pixels(255.0),
        rule="target_mismatch",
        subject="targets",
        also=("output_mismatch", "negative_loss", "unscaled_target"),
        fixed=lambda: _pixels(1.0),
    ),
    Scenario(
        "ids_for_rows",
        "Class ids, repeated, where rows of probabilities are expected.",
        lambda: _cultivars(lambda y: np.repeat(y[:, None], 3, 1).astype("f4")),
        rule="target_mismatch",
        subject="targets",
        fixed=lambda: _cultivars(_one_hot),
    ),
    Scenario(
        "targets_broadcast",
        "Targets `[n]` meet outputs `[n, 1]`: all pairs are compared.",
        lambda: _broadcast(True),
        rule="constant_output",
        subject="",
        also=("stalled_loss", "target_mismatch"),
        fixed=lambda: _broadcast(False),
        reaches=0.4,
    ),
    Scenario(
        "shares_cast_to_integers",
        "Shares in [0, 1) are cast to integers before training: all 0.",
        lambda: _shares(True),
        rule="constant_target",
        subject="targets",
        fixed=lambda: _shares(False),
    ),
    Scenario(
        "one_argmax_too_many",
        "An argmax of class ids, not of rows: all wines are the same.",
        lambda: _cultivars(_same),
        rule="constant_target",
        subject="targets",
        fixed=lambda: _cultivars(_one_hot),
    ),
    Scenario(
        "integer_division",
        "8-bit pixels divided by 255 as integers: inputs are all 0.",
        lambda: _integer_pixels(True),
        rule="constant_output",
        also=("stalled_loss",),
        fixed=lambda: _integer_pixels(False),
    ),
    Scenario(
        "normalised_away",
        "Inputs are normalised along the wrong axis: nothing is left.",
        lambda: _reused_norm(False),
        rule="constant_output",
        also=("stalled_loss",),
        fixed=lambda: _reused_norm(True),
    ),
)
