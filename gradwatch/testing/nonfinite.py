"""Programs whose loss, gradient or data turn NaN or Inf."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from keras.optimizers import Adam

from gradwatch.testing.data import (
    Data,
    cancer,
    counts,
    digit_ids,
)
from gradwatch.testing.digits import digits, distance
from gradwatch.testing.programs import (
    accuracy,
    classify_digits,
    dense_net,
    explained,
    fits,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _log_likelihood(epsilon: float) -> Any:
    """Bernoulli's log-likelihood, written by hand."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        right = y_true * ops.log(y_pred + epsilon)
        wrong = (1 - y_true) * ops.log(1 - y_pred + epsilon)
        return -ops.mean(right + wrong, -1)

    return loss


def _bernoulli(epsilon: float) -> Program:
    model = dense_net(30, [32], 1, last="sigmoid")
    adam = Adam(0.1)
    loss, judge = _log_likelihood(epsilon), accuracy(cancer())
    return fits(model, cancer(), judge, loss=loss, optimizer=adam, epochs=20)


def _poisson(raw: bool) -> Program:
    """Counts by a rate exp(score); scores of unscaled inputs overflow it."""
    x, y = counts()
    data = Data(x * (100.0 if raw else 1.0), y)
    model = dense_net(5, [16], 1, last="exponential")
    judge = explained(data)
    return fits(model, data, judge, loss="poisson", epochs=10)


def _distances(loss: Any) -> Program:
    """The digits of the demo."""
    x, y = digits()
    model = dense_net(64, [128, 128], 10, last="softmax")
    adam = Adam(0.01)
    data, judge = Data(x, y), accuracy(digit_ids())
    return fits(model, data, judge, loss=loss, optimizer=adam, batch_size=64)


def _holes(inputs: bool, hole: float) -> Program:
    """A table with a few missing numbers, in its inputs or its targets."""
    x, y = (part.copy() for part in cancer())
    (x if inputs else y)[300::97] = hole
    model = dense_net(30, [16], 1, last="sigmoid")
    loss, judge = "binary_crossentropy", accuracy(cancer())
    return fits(model, Data(x, y), judge, loss=loss, epochs=8, shuffle=False)


def _checkpoint(hole: float) -> Program:
    """Goes on from a checkpoint of which one number was damaged."""
    model = dense_net(64, [64, 64], 10, last="softmax")
    weights = model.get_weights()
    weights[2][5, 7] = hole
    model.set_weights(weights)
    return classify_digits(model)


def _softmax(stable: bool) -> Program:
    """A softmax written by hand, on pixels from 0 to 255."""

    def naive(x: Any) -> Any:
        return ops.exp(x) / ops.sum(ops.exp(x), axis=-1, keepdims=True)

    x, y = digit_ids()
    data = Data(x * 255, y)
    model = dense_net(64, [64], 10, last="softmax" if stable else naive)
    judge, loss = accuracy(data), "sparse_categorical_crossentropy"
    return fits(model, data, judge, loss=loss, batch_size=64, epochs=8)


FAULTY = (
    Scenario(
        "log_of_zero",
        "A log-likelihood without a safe epsilon meets a sure answer.",
        lambda: _bernoulli(0.0),
        rule="nonfinite_loss",
        severity="critical",
        subject="loss",
        fixed=lambda: _bernoulli(1e-6),
        costs=0.0,
    ),
    Scenario(
        "rate_overflows",
        "Poisson's rate is exp of a score of unscaled inputs.",
        lambda: _poisson(True),
        rule="nonfinite_gradient",
        severity="critical",
        also=("nonfinite_loss", "exploding_gradient", "unscaled_input"),
        fixed=lambda: _poisson(False),
        reaches=0.3,
    ),
    Scenario(
        "distance_as_loss",
        "A distance as a loss: its derivative is infinite at 0.",
        lambda: _distances(distance),
        rule="nonfinite_gradient",
        severity="critical",
        fixed=lambda: _distances("categorical_crossentropy"),
        costs=0.0,
    ),
    Scenario(
        "naive_softmax",
        "A softmax by hand overflows for scores above 88.",
        lambda: _softmax(False),
        rule="nonfinite_loss",
        severity="critical",
        also=("nonfinite_gradient", "unscaled_input"),
        fixed=lambda: _softmax(True),
        within=20,
    ),
    Scenario(
        "holes_in_table",
        "A few rows of a table are NaN.",
        lambda: _holes(True, np.nan),
        rule="nonfinite_batch",
        severity="critical",
        subject="inputs",
        also=("nonfinite_loss", "nonfinite_gradient"),
        fixed=lambda: _holes(True, 0.0),
        within=11,
    ),
    Scenario(
        "holes_in_targets",
        "A few labels are missing.",
        lambda: _holes(False, np.nan),
        rule="nonfinite_batch",
        severity="critical",
        subject="targets",
        also=("nonfinite_loss",),
        fixed=lambda: _holes(False, 1.0),
        within=11,
    ),
    Scenario(
        "damaged_checkpoint",
        "A weight of the checkpoint is NaN before the first step.",
        lambda: _checkpoint(np.nan),
        rule="nonfinite_weight",
        severity="critical",
        also=("nonfinite_loss", "nonfinite_gradient"),
        fixed=lambda: _checkpoint(0.1),
        within=1,
    ),
)
