"""Values and gradients of a subject at many points at once.

A point is one vector: all inputs of the subject, flattened, one behind the
other. The subject is traced once, and called for one point after the other
inside of that trace, so that nothing need be known of how it treats a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.audit.opened import opened_at
from gradwatch.audit.subject import Subject
from gradwatch.errors import GradWatchError

__all__ = ["Evaluation", "evaluation"]

_TINY = 1e-11
"""Relative step that float64 resolves and float32 does not."""


def evaluation(subject: Subject, training: bool) -> Evaluation:
    """Returns a subject's evaluation, in float64 where its code allows it."""
    key = "evaluation", training
    if key not in subject.cache:
        subject.cache[key] = _made(subject, training)
    found = subject.cache[key]
    assert isinstance(found, Evaluation)
    return found


def _made(subject: Subject, training: bool) -> Evaluation:
    """The first of float64 and float32, traced and eagerly, that runs."""
    point = join(subject.sample(1))
    why: Exception | None = None
    for eager in (False, True):
        for dtype in ("float64", "float32"):
            found = Evaluation(subject, training, dtype, eager)
            try:
                found.gradients(point, np.ones((1, found.results(point))))
                return found
            except GradWatchError:
                raise
            except Exception as error:  # whatever the user's code raises
                why = error
    assert why is not None
    raise why


def join(values: Sequence[Any]) -> Any:
    """Returns points, an array `[P, *shape]` an input, as vectors `[P, N]`."""
    return np.concatenate([v.reshape(len(v), -1) for v in values], axis=1)


class Evaluation:
    """A subject as a function from vectors to vectors.

    Args:
        subject: what is evaluated.
        training: the mode of layers.
        dtype: in which it computes.
        eager: whether it runs without a graph.

    Attributes:
        dtype: the same.
        eager: the same.
        slices: where each input stands in a vector.
        connected: whether each input has a gradient that is not `None`; after
            the first call of `gradients`.
    """

    def __init__(
        self, subject: Subject, training: bool, dtype: str, eager: bool
    ) -> None:
        self._subject, self.training = subject, training
        self.dtype, self.eager = dtype, eager
        self.connected: tuple[bool, ...] = ()
        self._sizes = [int(np.prod(i.domain.shape)) for i in subject.inputs]
        ends = np.cumsum(self._sizes)
        self.slices = [slice(e - n, e) for e, n in zip(ends, self._sizes)]
        width = int(ends[-1])
        vectors = tf.TensorSpec([None, width], tf.float64)
        upstream = tf.TensorSpec([None, None], tf.float64)
        self._values = self._mapped(self._flat, vectors)
        pairs = (vectors, upstream)
        self._slopes = self._mapped(self._slope, pairs)
        self._pairs = pairs
        self._single: bool | None = None

    def results(self, vectors: Any) -> int:
        """Returns how many numbers one call returns."""
        return int(self.outputs(vectors[:1]).shape[1])

    def outputs(self, vectors: Any) -> Any:
        """Returns all numbers of the results: float64 `[P, M]`.

        Args:
            vectors: float64 `[P, N]`.
        """
        return self._values(tf.constant(vectors)).numpy()

    def gradients(self, vectors: Any, upstream: Any) -> Any:
        """Returns gradients as TensorFlow computes them: float64 `[P, N]`.

        Zero where there is none, and for inputs that need none.

        Args:
            vectors: float64 `[P, N]`.
            upstream: float64 `[P, M]`, weights of the results.
        """
        pairs = tf.constant(vectors), tf.constant(upstream)
        return self._slopes(pairs).numpy()

    def through(
        self, vectors: Any, upstream: Any, opened: Callable[[Any], list[Any]]
    ) -> Any:
        """Returns `gradients` as they were without what stops or changes them.

        A `stop_gradient` then stops none, and of a backward pass of the user's
        the derivative is TensorFlow's own.

        Args:
            vectors: float64 `[P, N]`.
            upstream: float64 `[P, M]`.
            opened: of which operations of a graph that is so.

        Raises:
            Exception: it runs eagerly, or TensorFlow cannot.
        """

        def slope(pair: tuple[Any, Any]) -> Any:
            return self._slope_through(pair, opened)

        pairs = tf.constant(vectors), tf.constant(upstream)
        return self._mapped(slope, self._pairs)(pairs).numpy()

    def seconds(self, vectors: Any) -> float:
        """Returns how long one call takes, among several, at best."""
        times = [time.perf_counter()]
        for _ in range(3):
            self.outputs(vectors)
            times.append(time.perf_counter())
        return float(np.diff(times).min()) / len(vectors)

    def single(self, vectors: Any) -> bool:
        """Whether it computes in float32 inside, whatever it gets.

        Of the results that a step of 1 per mille changes, most do not feel one
        that float32 cannot resolve.
        """
        if self._single is None:
            noise = np.random.default_rng(0).uniform(0.5, 1, vectors.shape)
            moved = [vectors * (1 + h * noise) for h in (0.0, _TINY, 1e-3)]
            same, tiny, large = map(self.outputs, moved)
            with np.errstate(all="ignore"):
                alive = np.isfinite(large - same) & (large != same)
            unfelt = (alive & (tiny == same)).sum()
            self._single = self.dtype == "float32" or bool(
                unfelt > 0.2 * alive.sum()
            )
        return self._single

    def _mapped(
        self, function: Callable[[Any], Any], signature: Any
    ) -> Callable[[Any], Any]:
        """A function of one point as one of a batch of them."""
        if self.eager:
            return lambda elements: tf.stack(
                [
                    function(
                        tf.nest.map_structure(lambda t, i=i: t[i], elements)
                    )
                    for i in range(len(tf.nest.flatten(elements)[0]))
                ]
            )
        made: Callable[[Any], Any] = tf.function(
            lambda elements: tf.map_fn(
                function, elements, fn_output_signature=tf.float64
            ),
            autograph=False,
            input_signature=[signature],
        )
        return made

    def _split(self, vector: Any) -> list[Any]:
        found = []
        for one, part in zip(
            self._subject.inputs, tf.split(vector, self._sizes)
        ):
            dtype = tf.int32 if one.domain.whole else self.dtype
            found.append(tf.cast(tf.reshape(part, one.domain.shape), dtype))
        return found

    def _flat(self, vector: Any) -> Any:
        return self._joined(self._split(vector))

    def _joined(self, parts: Sequence[Any]) -> Any:
        found = self._subject.outputs(parts, self.dtype, self.training)
        flat = [tf.cast(tf.reshape(t, [-1]), tf.float64) for t in found]
        return tf.concat(flat, 0)

    def _slope(self, pair: tuple[Any, Any]) -> Any:
        vector, upstream = pair
        parts = self._split(vector)
        watched = [parts[i] for i in self._subject.trained]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            total = tf.reduce_sum(self._joined(parts) * upstream)
        slopes = dict(zip(self._subject.trained, tape.gradient(total, watched)))
        numbers = range(len(parts))
        self.connected = tuple(slopes.get(i) is not None for i in numbers)
        return self._vector(slopes)

    def _slope_through(
        self, pair: tuple[Any, Any], opened: Callable[[Any], list[Any]]
    ) -> Any:
        vector, upstream = pair
        parts = self._split(vector)
        watched = [parts[i] for i in self._subject.trained]
        total = tf.reduce_sum(self._joined(parts) * upstream)
        with opened_at(total.graph, opened(total.graph)):  # no tape would
            found = tf.gradients(total, watched)
        return self._vector(dict(zip(self._subject.trained, found)))

    def _fits(self, i: int, slope: Any) -> None:
        """Refuses gradients that TensorFlow lets pass: of another shape."""
        one = self._subject.inputs[i]
        if not slope.shape.is_compatible_with(one.domain.shape):
            raise GradWatchError(
                f"The gradient with respect to `{one.name}` has the shape "
                f"{tuple(slope.shape)}, not {one.domain.shape}: a backward "
                "pass sums over too few dimensions, or too many. If it is not "
                "made for such inputs, state them: `inputs`."
            )

    def _vector(self, slopes: dict[int, Any]) -> Any:
        """Gradients by input as one vector, zeros where there is none."""
        flat = []
        for i, size in enumerate(self._sizes):
            if slopes.get(i) is None:
                flat.append(tf.zeros(size, tf.float64))
            else:
                dense = tf.cast(tf.convert_to_tensor(slopes[i]), tf.float64)
                self._fits(i, dense)
                flat.append(tf.reshape(dense, [-1]))
        return tf.concat(flat, 0)
