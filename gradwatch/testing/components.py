"""Programs with several terms in their loss, and models of several parts."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from keras.optimizers import Adam

from gradwatch.components import component
from gradwatch.testing.data import (
    Data,
    cancer,
    diabetes,
    digit_ids,
    scaled,
)
from gradwatch.testing.generative import adversaries, variational
from gradwatch.testing.programs import (
    Judge,
    accuracy,
    classify_digits,
    dense_net,
    explained,
    fits,
    regress,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _sign_penalty(weight: float) -> Program:
    """Squares and a penalty on predictions of the wrong sign."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        fit = component("fit", ops.square(y_true - y_pred))
        sign = component("sign", ops.relu(-y_true * y_pred), weight)
        return fit + weight * sign

    return regress(diabetes(), loss=loss, optimizer=Adam(0.003), epochs=15)


def _smoothness(weight: float) -> Program:
    """Numbers of a table, and a penalty on their spread in a batch."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        fit = component("fit", ops.mean(ops.square(y_true - y_pred)))
        spread = component("spread", ops.var(y_pred), weight)
        return fit + weight * spread

    model = dense_net(10, [32], 1)
    judge = explained(diabetes())
    return fits(
        model,
        diabetes(),
        judge,
        loss=loss,
        optimizer=sgd(0.02 / (1 + weight)),
        epochs=20,
    )


def _decayed(strength: float) -> Program:
    """Digits with a penalty on the weights of both layers."""
    regular = keras.regularizers.L2(strength)
    model = dense_net(
        64,
        [64],
        10,
        last="softmax",
        kernel_regularizer=regular,
        head={"kernel_regularizer": regular},
    )
    return classify_digits(model, Adam(0.003))


def _opposed(sign: float) -> Program:
    """Two terms: fit the targets, and agree with them once more."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        fit = component("fit", ops.square(y_true - y_pred))
        agree = component("agree", ops.square(sign * y_true - y_pred))
        return fit + agree

    model = dense_net(10, [32], 1)
    judge, adam = explained(diabetes()), Adam(0.01)
    return fits(model, diabetes(), judge, loss=loss, optimizer=adam, epochs=15)


def _first(judge: Judge) -> Judge:
    """Judges the first of two outputs."""

    def of_first(model: Any) -> float:
        return judge(keras.Model(model.inputs, model.outputs[0]))

    return of_first


def _two_tasks(scale: float) -> Program:
    """One trunk; is a tumour benign, and how large is it."""
    x, y = cancer()
    area = cancer(True).x[:, 3:4]
    areas = area if scale > 1 else scaled(area)
    inputs = keras.Input((30,))
    trunk = layers.Dense(4, "relu", name="trunk")(inputs)
    benign = layers.Dense(1, "sigmoid", name="benign")(trunk)
    size = layers.Dense(1, name="area")(trunk)
    model = keras.Model(inputs, [benign, size])
    return fits(
        model,
        Data(x, [y, areas]),
        _first(accuracy(cancer())),
        loss=["binary_crossentropy", "mse"],
        optimizer=keras.optimizers.SGD(0.01, global_clipnorm=1.0),
        epochs=20,
    )


def _opposed_tasks(sign: float) -> Program:
    """Two heads that share all but a sign: one is rewarded for the other."""
    x, y = digit_ids()
    even = (y % 2 == 0).astype("float32").reshape(-1, 1)
    data = Data(x, even)

    def loss(y_true: Any, y_pred: Any) -> Any:
        right = component("right", ops.binary_crossentropy(y_true, y_pred))
        other = y_true if sign > 0 else 1 - y_true
        fair = component("fair", ops.binary_crossentropy(other, y_pred))
        return right + fair

    model = dense_net(64, [32], 1, last="sigmoid")
    return fits(model, data, accuracy(data), loss=loss, batch_size=64, epochs=8)


FAULTY = (
    Scenario(
        "penalty_on_sign",
        "A penalty on predictions of the wrong sign, off by decades.",
        lambda: _sign_penalty(1e4),
        rule="dominant_component",
        subject="sign",
        fixed=lambda: _sign_penalty(0.1),
        reaches=0.4,
    ),
    Scenario(
        "penalty_on_spread",
        "A penalty on the spread of predictions makes them constant.",
        lambda: _smoothness(100.0),
        rule="dominant_component",
        subject="spread",
        also=("constant_output",),
        fixed=lambda: _smoothness(0.01),
        reaches=0.4,
    ),
    Scenario(
        "weight_decay_of_one",
        "L2 regularisation of 1 where 1e-4 is usual: weights go to 0.",
        lambda: _decayed(1.0),
        rule="dominant_component",
        also=("constant_output", "stalled_loss"),
        fixed=lambda: _decayed(1e-4),
    ),
    Scenario(
        "two_tasks_of_unlike_scale",
        "Square micrometres by squares beside a cross-entropy.",
        lambda: _two_tasks(1e3),
        rule="dominant_component",
        subject="area",
        also=("unscaled_target",),
        fixed=lambda: _two_tasks(1.0),
    ),
    Scenario(
        "posterior_collapse",
        "A variational autoencoder with 50 times too much of the prior.",
        lambda: variational(50.0),
        rule="dominant_component",
        subject="kl",
        also=("constant_output",),
        fixed=lambda: variational(1.0),
        reaches=0.25,
    ),
    Scenario(
        "opposed_terms",
        "Two terms with opposite targets undo each other.",
        lambda: _opposed(-1.0),
        rule="conflicting_components",
        severity="info",
        also=("constant_output", "stalled_loss"),
        fixed=lambda: _opposed(1.0),
        reaches=0.4,
    ),
    Scenario(
        "opposed_labels",
        "A fairness term with the wrong sign undoes the classifier.",
        lambda: _opposed_tasks(-1.0),
        rule="conflicting_components",
        severity="info",
        also=("constant_output", "stalled_loss"),
        fixed=lambda: _opposed_tasks(1.0),
    ),
    Scenario(
        "generator_not_applied",
        "A GAN whose step forgets to update the generator.",
        lambda: adversaries(False),
        rule="frozen_variable",
        subject="generator",
        also=("missing_gradient",),
        fixed=lambda: adversaries(True),
    ),
)
