"""Keras' own functions: what is said about them is true."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import pytest

from gradwatch import audit
from tests.audit.test_gradient import found
from tests.models import half

_NOT = {"get", "serialize", "deserialize", "Loss"}


def _public(module: Any) -> dict[str, Any]:
    return {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith("_") and name not in _NOT and callable(thing)
    }


ACTIVATIONS = _public(keras.activations)
LOSSES = {n: t for n, t in _public(keras.losses).items() if inspect.isclass(t)}

# At 0 both halves of it count: its gradient is 2 there, and the slope 1.
SAYS = {"celu": {("wrong_at_point", "x")}}


@pytest.mark.parametrize("name", half(ACTIVATIONS))
def test_activations(name: str) -> None:
    """All of them are right, but for one point of `celu`."""
    stated = {}
    if name == "threshold":
        stated = {"inputs": {"x": (3, 6)}}
        function = lambda x: keras.activations.threshold(x, 0.5, 0.0)  # noqa: E731
    else:
        function = ACTIVATIONS[name]
    assert set(found(function, **stated)) == SAYS.get(name, set())


NOT_FINITE = ("CategoricalGeneralizedCrossEntropy", "CosineSimilarity")


@pytest.mark.parametrize("name", half(LOSSES))
def test_losses(name: str) -> None:
    """All their derivatives are judged, and two of them found fault with.

    A power below 1 has no derivative at a probability of 0; XLA makes NaN of
    the gradient of a normalised row of zeros (Keras 3.15.1). A similarity and
    Poisson's loss can be below 0, and circle loss compares examples: that is
    told, and no more.
    """
    settings = {"q": 0.5} if name.endswith("GeneralizedCrossEntropy") else {}
    report = audit(LOSSES[name](**settings))
    faults = {one.check for one in report.findings if one.severity != "info"}
    assert faults == ({"not_finite"} if name in NOT_FINITE else set())
    told = {one.check for one in report.findings} - faults
    assert told <= {"negative_value", "batch_mixed"}
    judged = {m.name: m.value for m in report.measurements}
    # As many as fit into a second: a loop over time is slow.
    assert judged["gradient_right"] > (30 if name == "CTC" else 100)
    assert judged["usable_gradient"] > 0.4


# Not made before a test begins: some make variables, which starts TensorFlow.
LAYERS: dict[str, Callable[[], Any]] = {
    "dense": lambda: keras.layers.Dense(3, activation="relu"),
    "conv2d": lambda: keras.layers.Conv2D(2, 3, activation="gelu"),
    "layer_normalization": lambda: keras.layers.LayerNormalization(),
    "batch_normalization": lambda: keras.layers.BatchNormalization(),
    "group_normalization": lambda: keras.layers.GroupNormalization(2),
    "multi_head_attention": lambda: keras.layers.MultiHeadAttention(2, 4),
    "additive_attention": lambda: keras.layers.AdditiveAttention(),
    "gru": lambda: keras.layers.GRU(3),
    "embedding": lambda: keras.layers.Embedding(7, 3),
    "max_pooling2d": lambda: keras.layers.MaxPooling2D(2),
    "softmax": lambda: keras.layers.Softmax(),
    "dropout": lambda: keras.layers.Dropout(0.3, seed=1),
    "maximum": lambda: keras.layers.Maximum(),
    "normalization": lambda: keras.layers.Normalization(mean=1.0, variance=2.0),
}


@pytest.mark.parametrize("name", half(LAYERS))
def test_layers(name: str) -> None:
    """Kinks, ties, statistics of a batch, random numbers, several inputs."""
    keras.utils.set_random_seed(0)  # attention may lose digits at large inputs
    assert audit(LAYERS[name]()).findings == ()


def test_what_is_true_of_layers() -> None:
    """PReLU has no gradient at 0; a spectral norm holds its vectors fast."""
    assert set(found(keras.layers.PReLU())) == {("wrong_at_point", "inputs")}
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(3))
    ((check, _),) = found(layer)
    assert check == "detached_part"
