"""What the Job trains: handwritten digits, watched, with its own endpoint.

`python train.py LOGDIR PORT [EPOCHS]` writes a run directory below LOGDIR, and
serves the metrics of the run on PORT of 127.0.0.1 while it trains.
"""

import sys
from pathlib import Path

import keras
from sklearn.datasets import load_digits

from gradwatch import GradWatch


def main(logdir: str, port: int, epochs: int) -> None:
    """Trains a small network under a GradWatch."""
    x, y = load_digits(return_X_y=True)
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ],
        name="digits",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    watch = GradWatch(Path(logdir), name="digits", metrics_port=port)
    model.fit(x, y, epochs=epochs, verbose=0, callbacks=[watch])
    print(watch.summary())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int((*sys.argv, 500)[3]))
