"""An audit before a run: a loss of one's own, with two faults.

It is meant as a squared error in which large targets count more. Written down
in a hurry, it learns something else, and no run tells why: its loss falls. An
audit needs no data and a second; it names what is wrong, by an example. Run it
with `python examples/08_audit_a_loss.py`.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_diabetes

import gradwatch

x, y = load_diabetes(return_X_y=True)
x = (x / x.std(axis=0)).astype("float32")
y = ((y - y.mean()) / y.std())[:, np.newaxis].astype("float32")


def hurried(y_true: Any, y_pred: Any) -> Any:
    largest = ops.max(ops.abs(y_pred)) + 1e-6  # of the targets: y_true
    share = ops.abs(y_true) / largest
    return ops.mean((1 + share) * ops.square(y_true + y_pred), axis=-1)


def mended(y_true: Any, y_pred: Any) -> Any:
    largest = ops.max(ops.abs(y_true)) + 1e-6
    share = ops.abs(y_true) / largest
    return ops.mean((1 + share) * ops.square(y_true - y_pred), axis=-1)


def train(loss: Any) -> float:
    """Returns the correlation of predictions with targets."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((x.shape[1],)), keras.layers.Dense(1)], name="progression"
    )
    model.compile(keras.optimizers.Adam(0.01), loss)
    watch = gradwatch.GradWatch("runs", name=loss.__name__)
    model.fit(x, y, batch_size=64, epochs=20, verbose=0, callbacks=[watch])
    return float(np.corrcoef(model.predict(x, verbose=0)[:, 0], y[:, 0])[0, 1])


reports = {loss: gradwatch.audit(loss) for loss in (hurried, mended)}
reports[hurried].print()
print()
for loss, report in reports.items():
    said = ", ".join(f.check for f in report.findings if f.severity != "info")
    print(f"{loss.__name__}: {said or 'nothing wrong'}", end="; ")
    print(f"its predictions correlate by {train(loss):.2f} with the targets.")
