"""A GAN with a train step of its own: two optimizers, each by its name.

A generator draws handwritten digits, a critic tells them from real ones. Both
have an optimizer, and one step applies both. Nothing in it is there for
gradwatch: it calls optimizers as the attributes of the model that hold them,
and gives each its own loss, gradient norm and learning rate: so it is seen who
wins, and that gradients reach both.
Run it with `python examples/07_gan_custom_train_step.py`.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from keras.optimizers import Adam
from sklearn.datasets import load_digits

from gradwatch import GradWatch

CODE = 16
real = (load_digits().data / 16.0).astype("float32")


class GAN(keras.Model):
    """A generator of digits and a critic, each with an optimizer."""

    def __init__(self) -> None:
        super().__init__(name="gan")
        self.generator = keras.Sequential(
            [
                keras.Input((CODE,)),
                layers.Dense(64, activation="relu", name="hidden"),
                layers.Dense(64, activation="sigmoid", name="pixels"),
            ],
            name="generator",
        )
        self.critic = keras.Sequential(
            [
                keras.Input((64,)),
                layers.Dense(64, activation="leaky_relu", name="hidden"),
                layers.Dense(1, name="score"),
            ],
            name="critic",
        )
        self.seeds = keras.random.SeedGenerator(0)

    def compile(self, critic_optimizer: Any, generator_optimizer: Any) -> None:
        """Takes two optimizers, which gradwatch calls as these attributes."""
        super().compile()
        self.critic_optimizer = critic_optimizer
        self.generator_optimizer = generator_optimizer

    def draw(self, count: int) -> Any:
        """Returns images, `[count, 64]`, made of random codes."""
        code = keras.random.normal((count, CODE), seed=self.seeds)
        return self.generator(code, training=True)

    def train_step(self, images: Any) -> dict[str, Any]:
        """The critic's turn, then the generator's."""
        count = ops.shape(images)[0]
        with tf.GradientTape() as tape:
            trust = self.critic(images, training=True)
            doubt = self.critic(self.draw(count), training=True)
            caught = ops.mean(ops.softplus(-trust) + ops.softplus(doubt))
        weights = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(caught, weights), weights)

        with tf.GradientTape() as tape:
            doubt = self.critic(self.draw(count), training=True)
            fooled = ops.mean(ops.softplus(-doubt))
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(fooled, weights), weights)
        return {"critic": caught, "generator": fooled}


def distance(drawn: Any) -> float:
    """Mean squared distance between the mean image drawn and the real one."""
    return float(((drawn.mean(axis=0) - real.mean(axis=0)) ** 2).mean())


keras.utils.set_random_seed(0)
model = GAN()
model.compile(Adam(0.0005, beta_1=0.5), Adam(0.001, beta_1=0.5))
before = distance(model.draw(500).numpy())
watch = GradWatch("runs")
model.fit(real, batch_size=64, epochs=15, verbose=0, callbacks=[watch])

print(watch.summary())
newest = {(signal, of): value for signal, of, value in watch.state["values"]}
print(f"\n  {'optimizer':26}{'loss':>10}{'gradient norm':>16}")
for name in ("critic_optimizer", "generator_optimizer"):
    loss = newest["loss_component", name]
    norm = newest["optimizer_gradient_norm", name]
    print(f"  {name:26}{loss:10.4f}{norm:16.4f}")
for (signal, path), norm in newest.items():
    if signal == "variable_gradient_norm":
        print(f"  {path:36}{norm:16.4f}")
after = distance(model.draw(500).numpy())
print(f"\nFrom the mean image: {before:.4f} before, {after:.4f} now.")
