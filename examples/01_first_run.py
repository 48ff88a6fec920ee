"""A first watched run: a small model that tells tumours apart.

Run it with `python examples/01_first_run.py`; it takes a few seconds and
writes a run directory below `runs`.
"""

import keras
from sklearn.datasets import load_breast_cancer

from gradwatch import GradWatch

x, y = load_breast_cancer(return_X_y=True)

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.layers.BatchNormalization(name="scale"),
        keras.layers.Dense(16, activation="relu", name="hidden"),
        keras.layers.Dense(1, activation="sigmoid", name="benign"),
    ],
    name="tumours",
)
model.compile(
    keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"]
)

# The one line that watches.
watch = GradWatch("runs", labels={"data": "breast cancer"})
model.fit(
    x,
    y,
    batch_size=32,
    epochs=10,
    validation_split=0.2,
    verbose=0,
    callbacks=[watch],
)

print(watch.summary())
print("\nLook further: tensorboard --logdir runs")
