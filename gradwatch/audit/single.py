"""A loss as a function of one target and one prediction.

All examples of the batch are this one. So what compares examples with each
other (a contrastive loss, a statistic of the batch) has nothing to compare, and
nothing need be known of how a loss reduces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwatch.audit.domain import Domain
from gradwatch.audit.evaluation import evaluation
from gradwatch.audit.subject import Subject

__all__ = ["Single"]

_BATCH = 256
"""Points that are handed to TensorFlow at once."""


class Single:
    """A loss of one example.

    Args:
        subject: a loss: a target and a prediction.

    Attributes:
        targets: domain of the target, batch included.
        predictions: domain of the prediction, batch included.
        small: relative difference below which two values are the same.
        seconds: how long one value takes.
        connected: whether the prediction has a gradient at all.
    """

    def __init__(self, subject: Subject) -> None:
        self._made = evaluation(subject, subject.modes[-1])
        (self._i,) = subject.trained
        self.connected = self._made.connected[self._i]
        self.targets = subject.inputs[1 - self._i].domain
        self.predictions = subject.inputs[self._i].domain
        target, prediction = self.draw(subject.generator(20), 2)
        vectors = self._vectors(target, prediction)
        self._upstream = np.ones((1, self._made.results(vectors)))
        self._upstream /= self._upstream.size
        self.small = 1e-5 if self._made.single(vectors) else 1e-9
        self.seconds = self._made.seconds(vectors)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Any, Any]:
        """Returns targets `[count, *shape]` and predictions, of one example."""
        pair = (
            _first(domain, domain.sample(random, count))
            for domain in (self.targets, self.predictions)
        )
        return next(pair), next(pair)

    def values(self, targets: Any, predictions: Any) -> Any:
        """Returns the loss: float64 `[K]`, the mean of what it returns.

        Args:
            targets: float64 `[K, *shape of one]`.
            predictions: float64 `[K, *shape of one]`.
        """
        vectors = self._vectors(targets, predictions)
        parts = [
            self._made.outputs(vectors[k : k + _BATCH]).mean(1)
            for k in range(0, len(vectors), _BATCH)
        ]
        return np.concatenate(parts)

    def slopes(self, targets: Any, predictions: Any) -> Any:
        """Returns its gradient by the prediction: float64, like these."""
        vectors = self._vectors(targets, predictions)
        upstream = np.repeat(self._upstream, len(vectors), 0)
        part = self._made.slices[self._i]
        found = self._made.gradients(vectors, upstream)[:, part]
        shape = self.predictions.shape
        if not shape:
            return found.reshape(len(vectors))
        return found.reshape(len(vectors), *shape).sum(1)

    def _vectors(self, targets: Any, predictions: Any) -> Any:
        parts = [
            _repeated(self.targets, targets),
            _repeated(self.predictions, predictions),
        ]
        ordered = parts if self._i == 1 else parts[::-1]
        return np.concatenate(ordered, axis=1)


def _first(domain: Domain, drawn: Any) -> Any:
    """The first example of batches `[count, batch, ...]`."""
    return drawn[:, 0] if domain.shape else drawn


def _repeated(domain: Domain, rows: Any) -> Any:
    rows = np.asarray(rows, float)
    if not domain.shape:
        return rows.reshape(len(rows), 1)
    flat = rows.reshape(len(rows), -1)
    return np.tile(flat, (1, domain.shape[0]))
