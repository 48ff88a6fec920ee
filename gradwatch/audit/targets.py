"""Which targets and predictions a loss takes, found by trying.

What each loss of Keras is made for stands in its documentation, and here. Of
any other, the pair of domains is chosen in which most numbers are finite and
most derivatives are not zero; of pairs that do as well, the widest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.audit.domain import Domain, Kind

__all__ = ["Pair", "candidates", "chosen", "known", "shapes"]

_BATCH, _CLASSES = 4, 3
_POINTS = 6
_TINY = 1e-4
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


_REAL: tuple[tuple[Kind, Kind], ...] = (
    ("real", "real"),
    ("ids", "real"),
    ("signs", "real"),
    ("binary", "real"),
    ("one_hot", "real"),
)
_BOUNDED: tuple[tuple[Kind, Kind], ...] = (
    ("ids", "simplex"),
    ("binary", "unit"),
    ("one_hot", "simplex"),
    ("simplex", "simplex"),
    ("positive", "positive"),
)
_SHARES = re.compile(
    "dice|jaccard|iou|tversky|focal|entropy|bce|kl_?div|likelihood|prob", re.I
)
_LOGITS = re.compile("logit|sigmoid|softmax|softplus", re.I)


def candidates(text: str = "") -> Iterator[Pair]:
    """Yields what is tried, likeliest first.

    Args:
        text: name and code of the loss, as far as they are known: where they
            speak of probabilities, and not of logits, bounded predictions come
            first.
    """
    name = text.partition("\n")[0]
    bounded = _SHARES.search(name) and not _LOGITS.search(text)
    kinds = (*_BOUNDED, *_REAL) if bounded else (*_REAL, *_BOUNDED)
    for targets, predictions in kinds:
        yield _pair(targets, predictions)


def shapes() -> Iterator[Pair]:
    """Yields what is tried of a loss that takes none of the others."""
    yield Pair(Domain((_BATCH,)), Domain((_BATCH,)))
    for wide in (2, 4):  # a mean and a width, say
        yield Pair(Domain((_BATCH, 1)), Domain((_BATCH, wide)))
    yield Pair(Domain((_BATCH, 2)), Domain((_BATCH, 4)))
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
    if from_logits and predictions in ("unit", "simplex"):
        predictions = "real"
    return _pair(targets, predictions)


def chosen(
    call: Callable[[Any, Any, str], Any],
    random: np.random.Generator,
    stated: Sequence[Domain | None] = (None, None),
    text: str = "",
    shape: tuple[int, ...] | None = None,
) -> Pair | Exception:
    """Returns the domains that a loss takes, or why it takes none.

    Args:
        call: of targets and predictions, tensors of a dtype (int32 where they
            are whole numbers), and the name of the dtype.
        random: draws the points.
        stated: domains of targets and predictions that are known.
        text: see `candidates`.
        shape: of the predictions, if it is known.
    """
    why: list[Exception] = []
    tries = itertools.product(
        (list(candidates(text)), list(shapes())), ("float64", "float32")
    )
    for pairs, dtype in tries:
        best, score = None, -1.0
        for pair in (_fitted(pair, stated, shape) for pair in pairs):
            try:
                found = _score(call, pair, random, dtype)
            except Exception as error:  # whatever the user's code raises
                why.append(error)
                continue
            if found > score + _BETTER:
                best, score = pair, found
            if score >= 1.0:
                break
        if best is not None:
            return best
    return why[0]


def _fitted(
    pair: Pair,
    stated: Sequence[Domain | None],
    shape: tuple[int, ...] | None,
) -> Pair:
    """A pair in which one is as stated, and the other of its shape."""
    targets, predictions = stated
    if predictions is None and targets is None and shape is not None:
        predictions = replace(pair.predictions, shape=shape)
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
    call: Callable[[Any, Any, str], Any],
    pair: Pair,
    random: np.random.Generator,
    dtype: str,
) -> float:
    """How well a loss does with such numbers, from 0 to 1.

    The mean share of finite values, and of examples with a slope that is finite
    and not zero; half of it where it rounds targets that are no whole numbers.
    """
    shares, rounds = [], []
    for _ in range(_POINTS):
        drawn = [domain.sample(random, 1)[0] for domain in pair]
        targets, predictions = (
            tf.constant(value, tf.int32 if domain.whole else dtype)
            for value, domain in zip(drawn, pair)
        )
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            value = tf.convert_to_tensor(call(targets, predictions, dtype))
        slopes = tape.gradient(value, predictions)
        slopes = tf.zeros_like(predictions) if slopes is None else slopes
        slopes = np.asarray(tf.convert_to_tensor(slopes), float)
        useful = np.isfinite(slopes) & (slopes != 0)
        rows = useful.reshape(len(useful), -1).any(1) if useful.ndim else useful
        finite = np.isfinite(np.asarray(value, float)).mean()
        shares.append((finite + rows.mean()) / 2)
        if pair.targets.kind in ("real", "positive", "unit", "simplex"):
            moved = tf.constant(drawn[0] * (1 + _TINY), dtype)
            after = call(moved, predictions, dtype)
            rounds.append(np.array_equal(after, value, equal_nan=True))
    ignored = bool(rounds) and all(rounds)
    return float(np.mean(shares)) * (0.5 if ignored else 1.0)
