"""What tests ask of a piece of code, faulty or correct."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.audit.oracle import Arrays, Subject, sample
from tests.audit.records import Correct, Planted

__all__ = [
    "advantage",
    "dependence",
    "exact",
    "finite",
    "growth",
    "still",
    "subject",
    "weighted",
    "witness",
]

DEPTH = 12
WIDTH = 64


def subject(case: Planted | Correct, dtype: str = "float32") -> Subject:
    """The code of a case, with the same weights each time."""
    keras.utils.set_random_seed(0)
    return Subject(case.make, dtype)


def exact(case: Planted | Correct) -> Subject:
    """In float64, or float32 where the code insists on that."""
    made = subject(case, "float64")
    try:
        results = made.call(sample(made.names, case.inputs, 0))
    except (TypeError, ValueError, tf.errors.InvalidArgumentError):
        return subject(case)
    if any(y.dtype != tf.float64 for y in results):
        return subject(case)
    return made


def still(case: Planted | Correct) -> frozenset[str]:
    """Arguments that are whole numbers: nobody differentiates by them."""
    bounds = (case.inputs or {}).items()
    return frozenset(n for n, (_, low, _) in bounds if isinstance(low, int))


def witness(case: Planted) -> Arrays:
    """The place where a fault shows, as arrays."""
    assert case.witness is not None
    return {n: np.asarray(v, np.float64) for n, v in case.witness.items()}


def finite(made: Subject, values: Arrays, xla: bool = False) -> bool:
    """Whether values and gradients are, the latter for a random upstream."""
    results = [np.asarray(y, np.float64) for y in made.call(values)]
    random = np.random.default_rng(1)
    upstream = [random.normal(size=y.shape) for y in results]
    found = made.gradients(values, upstream, xla).values()
    arrays = [a for a in (*results, *found) if a is not None]
    return all(np.isfinite(a).all() for a in arrays)


def advantage(case: Planted | Correct, seed: int) -> float:
    """How much smaller a loss gets if the prediction is not the target.

    The target is a random one; tried are steps down the gradient, the
    negative, the rim of the domain and random predictions.

    Args:
        case: a loss of `y_true` and `y_pred` of one shape.
        seed: of target and predictions.
    """
    made = exact(case)
    target = sample(made.names, case.inputs, seed)["y_true"]
    place: Arrays = {"y_true": target, "y_pred": target.copy()}
    slope = made.gradients(place)["y_pred"]
    assert slope is not None
    tried = [target - step * slope for step in (0.05, 0.5, 4.0)] + [-target]
    drawn = [sample(made.names, case.inputs, 100 + i) for i in range(8)]
    tried += [d["y_pred"] for d in drawn]
    if case.inputs is not None:
        _, low, high = case.inputs["y_pred"]
        rim = [np.full_like(target, low), np.full_like(target, high)]
        tried = [np.clip(t, low, high) for t in tried] + rim

    def loss(y_pred: Any) -> float:
        return float(np.sum(made.call({**place, "y_pred": y_pred})[0]))

    return loss(target) - min(loss(t) for t in tried)


def dependence(made: Subject, values: Arrays) -> float:
    """How much an example's result changes without the others.

    `inf` where results are not one an example; of one result for all, how much
    it depends on the order of the examples.
    """
    if isinstance(made.target, keras.losses.Loss):
        made.target.reduction = None
    whole = np.asarray(made.call(values)[0], np.float64)
    rows = len(next(iter(values.values())))
    if whole.ndim == 0:
        order = np.random.default_rng(2).permutation(rows)
        mixed = made.call({n: v[order] for n, v in values.items()})[0]
        return float(abs(whole - np.asarray(mixed)))
    if len(whole) != rows:
        return np.inf
    gaps = []
    for row in range(rows):
        alone = made.call({n: v[row : row + 1] for n, v in values.items()})[0]
        if alone.shape != (1, *whole.shape[1:]):
            return np.inf
        gaps.append(np.abs(np.asarray(alone)[0] - whole[row]).max())
    return float(max(gaps))


def weighted(case: Planted | Correct) -> float:
    """How much a loss depends on which of two examples has all the weight."""
    loss = case.make()
    names = ("y_true", "y_pred")
    drawn = sample(names, case.inputs, 0)
    y_true, y_pred = (tf.constant(drawn[n], tf.float32) for n in names)
    first, last = np.zeros((2, len(drawn["y_true"])), np.float32)
    first[0] = last[-1] = len(first)
    one, other = (
        float(loss(y_true, y_pred, sample_weight=tf.constant(w)))
        for w in (first, last)
    )
    return abs(one - other)


def growth(made: Any) -> float:
    """Factor per layer by which a deep stack scales what comes back.

    A function stands behind kernels that keep the variance.
    """
    random = np.random.default_rng(4)
    x = tf.constant(random.normal(size=(WIDTH, WIDTH)), tf.float64)
    keras.utils.set_random_seed(0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x
        for part in [Subject(made, "float64") for _ in range(DEPTH)]:
            if not isinstance(part.target, keras.layers.Layer):
                kernel = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
                y = tf.matmul(y, tf.constant(kernel))
            (y,) = part.run([y])
    up = tf.constant(random.normal(size=y.shape))
    slope = np.asarray(tape.gradient(y, x, up))
    ratio = np.linalg.norm(slope) / np.linalg.norm(up)
    return float(ratio ** (1 / DEPTH))
