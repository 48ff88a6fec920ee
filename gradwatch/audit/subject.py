"""What is audited: a loss, an activation, a layer, a model, a function.

Whatever it is, checks see the same: named inputs with a domain each, and a call
that computes the results of these in a dtype that they choose. Weights are
inputs like any other. Nothing of the user's object changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from gradwatch.audit.domain import Domain
from gradwatch.reports import Source

__all__ = ["Call", "Input", "Subject", "SubjectKind"]

_TRIED = 3
"""Points at which it must run, of all widths of `Domain.sample`."""

SubjectKind = Literal["loss", "activation", "layer", "model", "function"]

Call = Callable[[Sequence[Any], str, bool], Any]
"""`(values, dtype, training)`: tensors in the order of `Subject.inputs`, those
that are not whole numbers in `dtype`, in which all is to be computed as far as
the code allows it; returns a nest of tensors."""


@dataclass(frozen=True)
class Input:
    """An argument or a weight.

    Attributes:
        name: as the user knows it.
        domain: its shape, and where its values come from.
        trained: whether gradients with respect to it are wanted.
        weight: whether it is a weight.
        value: float64 array, what a weight holds.
    """

    name: str
    domain: Domain
    trained: bool = True
    weight: bool = False
    value: Any = None


@dataclass(frozen=True)
class Subject:
    """Something whose gradients are to be proved.

    Attributes:
        name: as the user knows it.
        kind: see `SubjectKind`.
        call: see `Call`.
        inputs: arguments, then weights.
        source: where it is defined.
        modes: values of `training` that make a difference.
        seed: of everything that is drawn.
        dtypes: in which it is to be looked at.
        original: the user's own object.
        second_order: whether it is to be differentiated twice.
    """

    name: str
    kind: SubjectKind
    call: Call
    inputs: tuple[Input, ...]
    source: Source | None = None
    modes: tuple[bool, ...] = (False,)
    seed: int = 0
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    original: Any = None
    second_order: bool = False
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def trained(self) -> tuple[int, ...]:
        """Numbers of the inputs of which gradients are wanted."""
        return tuple(i for i, one in enumerate(self.inputs) if one.trained)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers in it, none of a function."""
        if not isinstance(self.original, keras.Layer):
            return ()
        return tuple(each.path for each in self.original._flatten_layers())

    @property
    def own_dtype(self) -> str:
        """In which the user's object computes when it trains."""
        found = str(getattr(self.original, "compute_dtype", "float32"))
        return found if found in ("float16", "bfloat16") else "float32"

    def generator(self, *salt: int) -> np.random.Generator:
        """Returns random numbers, the same ones each time."""
        return np.random.default_rng([self.seed, *salt])

    def sample(self, count: int, salt: int = 0) -> list[Any]:
        """Returns `count` random points: float64 `[count, *shape]` an input."""
        found = []
        for i, one in enumerate(self.inputs):
            random = self.generator(salt, i)
            if one.value is None:
                found.append(one.domain.sample(random, count))
            else:
                found.append(_around(one.value, random, count))
        return found

    def tensors(self, point: Sequence[Any], dtype: str) -> list[Any]:
        """Returns one point (an array an input) as the tensors of a call."""
        return [
            tf.constant(value, tf.int32 if one.domain.whole else dtype)
            for one, value in zip(self.inputs, point)
        ]

    def outputs(
        self, values: Sequence[Any], dtype: str, training: bool = False
    ) -> list[Any]:
        """Calls it; returns its results as a flat list of tensors.

        Variables of Keras that it assigns (statistics, seeds) stay as they are,
        so that two calls draw the same random numbers.
        """
        with keras.StatelessScope():
            found = self.call(values, dtype, training)
        return [
            tf.convert_to_tensor(leaf)
            for leaf in tf.nest.flatten(found)
            if leaf is not None
        ]

    def failure(self) -> Exception | None:
        """Returns why it cannot be called, `None` if it can."""
        drawn = list(zip(*self.sample(_TRIED)))
        why: Exception | None = None
        for dtype in ("float64", "float32"):
            try:
                for point in drawn:
                    self.outputs(self.tensors(point, dtype), dtype)
                return None
            except Exception as error:  # whatever the user's code raises
                why = error
        return why

    def function(
        self, dtype: str, training: bool = False, *, jit: bool = False
    ) -> Callable[..., list[Any]]:
        """Returns it as a `tf.function` of tensors, as `fit` would trace it."""
        made: Callable[..., list[Any]] = tf.function(
            lambda *values: self.outputs(values, dtype, training),
            autograph=False,
            jit_compile=jit,
        )
        return made


def _around(value: Any, random: np.random.Generator, count: int) -> Any:
    """Weights as they are, then with noise: zeros hide what they multiply."""
    noise = random.normal(size=(count, *value.shape))
    scale = 0.3 * (np.abs(value).mean() + 0.3)
    noise[0] *= 0.0 if np.any(value) else 0.1
    return value + scale * noise
