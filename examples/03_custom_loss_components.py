"""A loss of two terms: what each is, and which of them moves the weights.

A prediction on the wrong side of the mean is to cost extra, so a penalty with a
coefficient is added to the squares. With 10,000 it outweighs them by decades:
the model learns little, although the total falls. `component` marks the terms:
they are told by name, add up to the loss, and gradwatch says which of them
dominates. Run it with `python examples/03_custom_loss_components.py`.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from sklearn.datasets import load_diabetes

from gradwatch import GradWatch, component

x, y = load_diabetes(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
y = ((y - y.mean()) / y.std()).astype("float32")[:, None]


def squares_and_sign(weight: float) -> Callable[[Any, Any], Any]:
    """Returns the squares plus `weight` times a penalty on the wrong sign."""

    def progression(y_true: Any, y_pred: Any) -> Any:
        fit = component("fit", ops.square(y_true - y_pred))
        # The third argument is what the loss multiplies the term by.
        sign = component("sign", ops.relu(-y_true * y_pred), weight)
        return fit + weight * sign

    return progression


def train(name: str, weight: float) -> GradWatch:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(1, name="output"),
        ],
        name="progression",
    )
    model.compile(keras.optimizers.Adam(0.003), squares_and_sign(weight))
    # X-rays measure each term's gradient. A run of seconds can afford more of
    # them than the defaults allow.
    watch = GradWatch("runs", name=name, xray_every_steps=50, budget=1.0)
    model.fit(x, y, epochs=15, verbose=0, callbacks=[watch])
    explained = 1 - ((model.predict(x, verbose=0) - y) ** 2).mean()
    print(f"\n{watch.summary()}\n  explains {explained:.0%} of the variance")
    show(watch)
    return watch


def show(watch: GradWatch) -> None:
    """Prints each part in the last step, and its gradient at the last X-ray."""
    newest = {(signal, of): v for signal, of, v in watch.state["values"]}
    print(f"  {'part of the loss':24}{'value':>12}{'gradient norm':>16}")
    for (signal, part), value in newest.items():
        if signal == "loss_component":
            norm = newest["component_gradient_norm", part]
            print(f"  {part:24}{value:12.4g}{norm:16.4g}")
    print(f"  {'the loss':24}{newest['loss', '']:12.4g}")


heavy = train("sign-10000", 10_000.0)
light = train("sign-0.1", 0.1)
