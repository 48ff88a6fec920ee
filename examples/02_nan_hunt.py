"""A NaN hunt: a home-made cross-entropy that takes the logarithm of 0.

The loss below is what a textbook says, and it works until the model is so sure
of one answer that float32 rounds its probability to exactly 1. Then log(1 - 1)
is minus infinity, and 0 times that is NaN. gradwatch names step and loss, and
keeps the update out of the weights. Run it with
`python examples/02_nan_hunt.py`.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_breast_cancer

from gradwatch import GradWatch

x, y = load_breast_cancer(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
y = y[:, np.newaxis].astype("float32")


def textbook(y_true: Any, p: Any) -> Any:
    return -(y_true * ops.log(p) + (1 - y_true) * ops.log(1 - p))


def repaired(y_true: Any, p: Any) -> Any:
    return textbook(y_true, ops.clip(p, 1e-6, 1 - 1e-6))


def train(loss: Any) -> GradWatch:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(1, activation="sigmoid", name="benign"),
        ],
        name="tumours",
    )
    model.compile(keras.optimizers.Adam(0.01), loss)
    watch = GradWatch("runs", name=loss.__name__)
    model.fit(x, y, batch_size=32, epochs=30, verbose=0, callbacks=[watch])
    print(f"\n{watch.summary()}")
    finite = all(np.isfinite(w).all() for w in model.get_weights())
    print(f"  weights are finite: {finite}")
    return watch


broken = train(textbook)
fixed = train(repaired)

(finding,) = broken.findings
print(f"\n`textbook` broke at step {finding.first_step} with {finding.rule}.")
print(f"`repaired` went on for all {fixed.state['steps']} steps.")
