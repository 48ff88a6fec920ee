"""Small models and data that several tests train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

BATCH = 32
ROWS = 520
"""16 batches of 32 and a partial one of 8: the step knows no batch size."""

WHOLE = 512
"""Whole batches only: for a partial one XLA compiles the step again."""


class Mode(NamedTuple):
    """A way in which Keras runs a train step."""

    jit_compile: bool = False
    steps_per_execution: int = 1
    run_eagerly: bool = False

    def __str__(self) -> str:
        kind = "xla" if self.jit_compile else "graph"
        kind = "eager" if self.run_eagerly else kind
        return f"{kind}-{self.steps_per_execution}"


GRAPH = Mode()
MODES = (
    GRAPH,
    Mode(steps_per_execution=32),
    Mode(jit_compile=True),
    Mode(jit_compile=True, steps_per_execution=32),
    Mode(run_eagerly=True),
)
SOME = (GRAPH, MODES[3], MODES[4])
"""One of each: XLA's is also the one with a loop around the step."""


def mostly(cases: Iterable[Any]) -> list[Any]:
    """Returns cases, modes or tuples with one, for `parametrize`.

    Those of no mode of `SOME` are left to `make acceptance`.
    """

    def some(case: Any) -> bool:
        return any(part in SOME for part in _tuple(case))

    known = list(cases)
    return [
        *filter(some, known),
        *at_length(case for case in known if not some(case)),
    ]


def at_length(cases: Iterable[Any]) -> list[Any]:
    """Returns cases for `parametrize`, all left to `make acceptance`."""
    marks = pytest.mark.acceptance
    return [pytest.param(*_tuple(case), marks=marks) for case in cases]


def half(names: Iterable[str]) -> list[Any]:
    """Returns names for `parametrize`; each second is for `make acceptance`."""
    known = sorted(names)
    return [*known[::2], *at_length(known[1::2])]


def _tuple(case: Any) -> tuple[Any, ...]:
    plain = isinstance(case, tuple) and not isinstance(case, Mode)
    return case if plain else (case,)


def data(rows: int = ROWS) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns float32 `[rows, 8]` and class ids `[rows]`, the first of 520."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 8)).astype(np.float32)
    return x[:rows], random.integers(0, 3, ROWS)[:rows]


def classifier(
    mode: Mode = GRAPH, *, built: bool = True, drop: float = 0.3
) -> Any:
    """Returns a compiled model with BatchNorm and Dropout, always the same.

    Args:
        mode: how its step runs.
        built: whether it has an `Input`, or is built by the first batch.
        drop: rate of its Dropout; XLA draws other numbers than TensorFlow.
    """
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Dense(16, activation="relu", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(drop, name="drop"),
        keras.layers.Dense(3, name="classes"),
    ]
    first = [keras.Input((8,))] if built else []
    model = keras.Sequential([*first, *layers], name="net")
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **mode._asdict(),
    )
    return model


def values(model: Any) -> dict[str, NDArray[Any]]:
    """Returns all values of a model, its optimizer and its metrics, by path."""
    everything = (
        *model.variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    )
    return {f"{i} {v.path}": v.numpy() for i, v in enumerate(everything)}


def assert_same(left: Any, right: Any) -> None:
    """Asserts that two models' values are bitwise equal."""
    ours, theirs = values(left), values(right)
    assert len(ours) == len(theirs)
    for (path, a), b in zip(ours.items(), theirs.values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


def batches(rows: int = ROWS) -> Iterator[tuple[Any, Any]]:
    """Yields the batches of `data()` in order."""
    x, y = data(rows)
    for first in range(0, rows, BATCH):
        yield x[first : first + BATCH], y[first : first + BATCH]


def fit(model: Any, *callbacks: Any, rows: int = ROWS, **options: Any) -> Any:
    """Trains one quiet epoch on `data()`, in order, unless `options` differ."""
    x, y = data(rows)
    kept = {"verbose": 0, "shuffle": False, "batch_size": BATCH, **options}
    return model.fit(x, y, callbacks=[*callbacks], **kept)
