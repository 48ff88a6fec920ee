"""Which targets and predictions a loss takes, found by trying.

What each loss of Keras is made for stands in its documentation, and here. Of
any other, the pair of domains is chosen in which most numbers are finite and
most derivatives are not zero; of pairs that do as well, the widest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.audit.domain import Domain, Kind

__all__ = ["Pair", "candidates", "chosen", "known"]

_BATCH, _CLASSES = 4, 3
_POINTS = 6
_BETTER = 0.02
"""So much more of finite numbers and of slopes is worth a narrower domain."""


class Pair(NamedTuple):
    """Domains of targets and of predictions."""

    targets: Domain
    predictions: Domain


def _pair(targets: Kind, predictions: Kind, classes: int = _CLASSES) -> Pair:
    shape = (_BATCH, classes)
    if targets == "ids":
        high = float(classes - 1)
        ids = Domain((_BATCH,), "ids", 0.0, high, whole=True)
        return Pair(ids, Domain(shape, predictions))
    return Pair(Domain(shape, targets), Domain(shape, predictions))


def candidates() -> Iterator[Pair]:
    """Yields what is tried, widest first."""
    yield _pair("real", "real")
    yield _pair("signs", "real")
    yield _pair("binary", "real")
    yield _pair("one_hot", "real")
    yield _pair("positive", "positive")
    yield _pair("binary", "unit")
    yield _pair("one_hot", "simplex")
    yield _pair("simplex", "simplex")
    yield _pair("ids", "real")
    yield _pair("ids", "simplex")
    yield Pair(Domain((_BATCH,)), Domain((_BATCH,)))
    images = (2, 16, 16, 1)
    yield Pair(Domain(images, "unit"), Domain(images, "unit"))


_KERAS: dict[str, tuple[Kind, Kind]] = {
    "binary_crossentropy": ("binary", "unit"),
    "binary_focal_crossentropy": ("binary", "unit"),
    "categorical_crossentropy": ("one_hot", "simplex"),
    "categorical_focal_crossentropy": ("one_hot", "simplex"),
    "categorical_generalized_cross_entropy": ("ids", "simplex"),
    "categorical_hinge": ("one_hot", "real"),
    "cosine_similarity": ("real", "real"),
    "dice": ("binary", "unit"),
    "hinge": ("signs", "real"),
    "huber": ("real", "real"),
    "kl_divergence": ("simplex", "simplex"),
    "log_cosh": ("real", "real"),
    "mean_absolute_error": ("real", "real"),
    "mean_absolute_percentage_error": ("real", "real"),
    "mean_squared_error": ("real", "real"),
    "mean_squared_logarithmic_error": ("positive", "positive"),
    "poisson": ("positive", "positive"),
    "sparse_categorical_crossentropy": ("ids", "simplex"),
    "squared_hinge": ("signs", "real"),
    "tversky": ("binary", "unit"),
}
_LOGITS = ("unit", "simplex")


def known(name: str, from_logits: bool) -> Pair | None:
    """Returns the domains of a loss of Keras.

    Args:
        name: of its function.
        from_logits: whether it was made for logits.
    """
    if name == "ctc":
        frames = Domain((2, 6, 4))
        return Pair(Domain((2, 3), "ids", 1.0, 3.0, whole=True), frames)
    if name == "circle":
        return _pair("ids", "real")
    if name not in _KERAS:
        return None
    targets, predictions = _KERAS[name]
    if from_logits and predictions in _LOGITS:
        predictions = "real"
    return _pair(targets, predictions)


def chosen(
    call: Callable[[Any, Any], Any],
    random: np.random.Generator,
    stated: Sequence[Domain | None] = (None, None),
) -> Pair | Exception:
    """Returns the domains that a loss takes, or why it takes none.

    Args:
        call: of targets and predictions, float64 tensors or int32.
        random: draws the points.
        stated: domains of targets and predictions that are known.
    """
    best, score, why = None, -1.0, Exception("nothing was tried")
    for pair in (_fitted(pair, stated) for pair in candidates()):
        try:
            found = _score(call, pair, random)
        except Exception as error:  # whatever the user's code raises
            why = error
            continue
        if found > score + _BETTER:
            best, score = pair, found
        if score >= 1.0:
            break
    return best or why


def _fitted(pair: Pair, stated: Sequence[Domain | None]) -> Pair:
    """A pair in which one is as stated, and the other of its shape."""
    targets, predictions = stated
    if predictions is not None:
        shape = predictions.shape
        short = pair.targets.kind == "ids"
        other = replace(pair.targets, shape=shape[:-1] if short else shape)
        return Pair(other, predictions)
    if targets is not None and targets.whole:
        shape = (*targets.shape, max(2, int(targets.high) + 1))
        return Pair(targets, replace(pair.predictions, shape=shape))
    if targets is not None:
        return Pair(targets, replace(pair.predictions, shape=targets.shape))
    return pair


def _score(
    call: Callable[[Any, Any], Any], pair: Pair, random: np.random.Generator
) -> float:
    """Share of finite values, plus that of slopes that are finite, not zero."""
    shares = []
    for _ in range(_POINTS):
        targets, predictions = (
            tf.constant(
                d.sample(random, 1)[0], tf.int32 if d.whole else tf.float64
            )
            for d in pair
        )
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            value = tf.convert_to_tensor(call(targets, predictions))
        slopes = tape.gradient(value, predictions)
        slopes = tf.zeros_like(predictions) if slopes is None else slopes
        finite = np.isfinite(np.asarray(value, float)).mean()
        slopes = np.asarray(tf.convert_to_tensor(slopes), float)
        useful = (np.isfinite(slopes) & (slopes != 0)).mean()
        shares.append((finite + useful) / 2)
    return float(np.mean(shares))
