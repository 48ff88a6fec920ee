"""A rule of your own: what only you know about your training.

Here it is that the learning rate may only fall. The schedule below has a typo,
0.03 instead of 0.003, and the model learns all the same: its loss looks like
any other, and nobody else would say a word. The rule in `own_rules.py` names
the step. It is a class with five attributes and two methods, needs NumPy only,
and can be tried on runs that are over. Run it with
`python examples/04_own_rule.py`.
"""

import keras
from own_rules import rules
from sklearn.datasets import load_digits

from gradwatch import GradWatch

x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu", name="hidden"),
        keras.layers.Dense(10, activation="softmax", name="classes"),
    ],
    name="digits",
)
schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
    boundaries=[150, 250], values=[0.01, 0.03, 0.001]
)
adam = keras.optimizers.Adam(schedule)
model.compile(adam, "sparse_categorical_crossentropy")

watch = GradWatch("runs", rules=rules())
model.fit(x, y, batch_size=64, epochs=12, verbose=0, callbacks=[watch])

print(watch.summary())
print("\nThe same rule on the recorded run, without training it again:")
print(f"  gradwatch judge {watch.path} --rules examples.own_rules:rules")
