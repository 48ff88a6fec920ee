"""What the programs of the scenarios have in common.

A program is `compile` and `fit` of a model, and a judge of what came out that
looks at data and predictions and never at the loss, which may be the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.optimizers import Adam

from gradwatch.testing.data import Data, cancer, digit_ids
from gradwatch.testing.scenario import Program

__all__ = [
    "Judge",
    "OwnStep",
    "accuracy",
    "classify_digits",
    "classify_tumours",
    "dense_digits",
    "dense_net",
    "explained",
    "fits",
    "regress",
    "sgd",
]

Judge = Callable[[Any], float]
"""Says of a trained model how good it is: 1 perfect, 0 a constant answer."""


def accuracy(data: Data, threshold: float = 0.5) -> Judge:
    """How far a classifier's accuracy is from the largest class' share to 1.

    Args:
        data: class ids as targets, or one column of 0 and 1.
        threshold: of a single output, from which on it says 1.
    """
    x, y = data
    truth = np.asarray(y).astype(np.int64)
    truth = truth.reshape(-1) if truth.shape[-1:] == (1,) else truth
    chance = np.bincount(truth.reshape(-1)).max() / truth.size

    def judge(model: Any) -> float:
        output = model.predict(x, verbose=0, batch_size=512)
        if not np.isfinite(output).all():
            return float("nan")
        one = output.shape[-1] == 1
        said = output[..., 0] > threshold if one else output.argmax(-1)
        return float(((said == truth).mean() - chance) / (1 - chance))

    return judge


def explained(data: Data, scale: float = 1.0) -> Judge:
    """The share of the targets' variance that predictions explain.

    Args:
        data: numbers as targets.
        scale: by what the model's predictions are to be multiplied.
    """
    x, y = data
    truth = np.asarray(y, np.float64)
    spread = ((truth - truth.mean(0)) ** 2).mean()

    def judge(model: Any) -> float:
        output = model.predict(x, verbose=0, batch_size=512)
        found = np.asarray(output, np.float64).reshape(truth.shape) * scale
        return float(max(1 - ((found - truth) ** 2).mean() / spread, -1))

    return judge


def fits(
    model: Any,
    data: Data | Any,
    judge: Judge,
    *,
    loss: Any,
    optimizer: Any = "adam",
    epochs: int = 10,
    batch_size: int = 32,
    callbacks: Sequence[Any] = (),
    compiled: Mapping[str, Any] | None = None,
    **fit: Any,
) -> Program:
    """Returns the program that compiles `model` and fits it.

    Args:
        model: a `keras.Model`.
        data: inputs and targets, anything that `fit` takes as `x` and `y`.
        judge: of the trained model.
        loss: see `compile`.
        optimizer: see `compile`.
        epochs: see `fit`.
        batch_size: see `fit`.
        callbacks: the program's own.
        compiled: further arguments of `compile`.
        **fit: further arguments of `fit`.
    """
    model.compile(optimizer, loss, **(compiled or {}))

    def train(watching: Sequence[Any]) -> None:
        x, y = data
        model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=0,
            callbacks=[*callbacks, *watching],
            **fit,
        )

    return Program(train, lambda: judge(model))


def classify_digits(
    model: Any,
    optimizer: Any = "adam",
    *,
    loss: Any = "sparse_categorical_crossentropy",
    epochs: int = 8,
    batch_size: int = 64,
    **options: Any,
) -> Program:
    """Returns the program that fits a model to the digits, see `fits`."""
    return fits(
        model,
        digit_ids(),
        accuracy(digit_ids()),
        loss=loss,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        **options,
    )


def sgd(rate: float = 0.01, momentum: float = 0.0, **options: Any) -> Any:
    """Returns gradient descent."""
    return keras.optimizers.SGD(rate, momentum, **options)


def dense_net(
    inputs: int | tuple[int, ...],
    units: Sequence[int],
    outputs: int,
    *,
    activation: Any = "relu",
    last: Any = None,
    kind: Any = keras.Sequential,
    head: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Returns Dense layers `hidden_1`, `hidden_2`, ... and `output`.

    Args:
        inputs: numbers of an example, or its shape, which is flattened.
        units: of the hidden layers.
        outputs: units of the last layer.
        activation: of the hidden layers.
        last: activation of the last layer.
        kind: the class of the model, made from a list of layers.
        head: further arguments of the last layer.
        **options: further arguments of the hidden layers.
    """
    flat = isinstance(inputs, int)
    layers = [keras.Input((inputs,) if flat else inputs)]
    layers += [] if flat else [keras.layers.Flatten()]
    layers += [
        keras.layers.Dense(n, activation, name=f"hidden_{i}", **options)
        for i, n in enumerate(units, 1)
    ]
    end = keras.layers.Dense(outputs, last, name="output", **(head or {}))
    return kind([*layers, end])


def dense_digits(
    optimizer: Any = "adam", units: Sequence[int] = (64, 64), **options: Any
) -> Program:
    """Returns the program that fits a plain dense net to the digits."""
    model = dense_net(64, units, 10, last="softmax")
    return classify_digits(model, optimizer, **options)


def classify_tumours(
    last: Any = "sigmoid",
    loss: Any = "binary_crossentropy",
    targets: Callable[[Any], Any] = lambda y: y,
    **options: Any,
) -> Program:
    """Returns the program that fits a small net to the tumours.

    Args:
        last: activation of the output; without one it is a score.
        loss: see `compile`.
        targets: of the labels 0 and 1.
        **options: see `fits`.
    """
    x, y = cancer()
    model = dense_net(30, [16], 1, last=last)
    judge = accuracy(cancer(), 0.5 if last == "sigmoid" else 0.0)
    return fits(model, Data(x, targets(y)), judge, loss=loss, **options)


def regress(
    data: Data,
    last: Any = None,
    *,
    units: Sequence[int] = (32,),
    truth: Data | None = None,
    **options: Any,
) -> Program:
    """Returns the program that fits numbers, by squares unless told otherwise.

    Args:
        data: what is fitted.
        last: activation of the output.
        units: of the hidden layers.
        truth: what it is judged by, if that is something else.
        **options: see `fits`.
    """
    model = dense_net(data.x.shape[1], units, data.y.shape[1], last=last)
    return fits(
        model,
        data,
        explained(truth or data),
        **{"loss": "mse", "optimizer": Adam(0.01), **options},
    )


class OwnStep(keras.Sequential):
    """A model with a hand-written step that changes gradients on the way.

    Attributes:
        change: path of a weight and its gradient -> what is applied.
    """

    change: Callable[[str, Any], Any]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of gradient descent, written by hand."""
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        changed = [
            self.change(weight.path, gradient)
            for weight, gradient in zip(weights, gradients)
        ]
        self.optimizer.apply(changed, weights)
        for metric in self.metrics:
            metric.update_state(
                *([loss] if metric.name == "loss" else (y, y_pred))
            )
        return {m.name: m.result() for m in self.metrics}
