"""Mixed precision: the loss scale, updates that it drops, true gradient norms.

With `mixed_float16` the loss is multiplied by a scale before the backward pass,
so that small gradients survive in float16. Where they overflow, Keras drops the
update and halves the scale. gradwatch tells the scale, counts the drops, which
are no incident, and divides gradients by the scale: norms are those of the same
training in float32. Here a step trains on all examples, so that both runs see
the same. Run it with `python examples/06_mixed_precision.py`.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

from gradwatch import GradWatch
from gradwatch.sinks.readings import read_blocks

x, y = load_breast_cancer(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
steps = tf.data.Dataset.from_tensors((x, y[:, None])).repeat(90)


def train(policy: str) -> GradWatch:
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            # The last layer and the loss are better computed in float32.
            keras.layers.Dense(1, dtype="float32", name="score"),
        ],
        name="tumours",
    )
    optimizer = keras.optimizers.Adam(0.01)
    if policy == "mixed_float16":
        # `compile` does this by itself, with a scale of 32,768 that doubles
        # after 2,000 updates. Here it begins too high and doubles after 10.
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=2.0**26, dynamic_growth_steps=10
        )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    watch = GradWatch("runs", name=policy)
    model.fit(steps, shuffle=False, verbose=0, callbacks=[watch])
    print(f"\n{watch.summary()}")
    return watch


def column(watch: GradWatch, signal: str) -> np.ndarray:
    """Returns all recorded values of a signal, step by step."""
    return np.concatenate(
        [
            block.values[:, schema.column(signal)]
            for schema, block in read_blocks(watch.path)
            if len(block)
        ]
    )


full = train("float32")
half = train("mixed_float16")

scales = column(half, "loss_scale")
dropped = column(half, "update_dropped") > 0
skipped = half.state["counters"]["skipped_steps"]
print(f"\nUpdates dropped by loss scaling: {skipped['loss_scale']}")
print(f"Steps dropped because they were bad: {skipped['nonfinite']}")
print("Loss scale, where it changes:")
for step in np.flatnonzero(np.diff(scales, prepend=0)):
    what = "overflow, dropped" if dropped[step] else "applied"
    print(f"  step {step:3}  {scales[step]:14,.0f}  {what}")

# The first update that was not dropped is the first one of the other run.
print("Gradient norm of the first updates, float16 and float32:")
norms = column(half, "gradient_norm")[~dropped]
for ours, theirs in zip(norms[:5], column(full, "gradient_norm")):
    print(f"  {ours:.4f}  {theirs:.4f}")
