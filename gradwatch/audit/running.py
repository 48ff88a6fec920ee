"""A subject as it runs in training: one point, one dtype, eager, graph or XLA.

Values and gradients come from the same trace, in which each gradient operation
is named after its forward operation, so that the autopsy's search for an origin
works on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.audit.evaluation import evaluation
from gradwatch.audit.subject import Subject

__all__ = [
    "BACKWARD",
    "MODES",
    "Answer",
    "Mode",
    "Point",
    "Running",
    "as_before",
    "running",
]

Mode = Literal["graph", "xla", "eager"]
MODES: tuple[Mode, ...] = ("graph", "xla", "eager")

Point = Sequence[Any]
"""A float64 array for each of `Subject.inputs`."""

BACKWARD = "gradwatch_backward"
"""What the names of gradient operations hold."""


class Answer(NamedTuple):
    """What a call computes.

    Attributes:
        values: float64 `[M]`, all float results.
        slopes: a float64 array for each input, empty where there is none.
    """

    values: Any
    slopes: tuple[Any, ...]

    @property
    def parts(self) -> tuple[Any, ...]:
        """The values, and the slopes of each input."""
        return self.values, *self.slopes

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return all(np.isfinite(each).all() for each in self.parts)

    @property
    def largest(self) -> float:
        """The largest magnitude, 0 of nothing."""
        return max(
            (np.abs(each).max(initial=0.0) for each in self.parts), default=0.0
        )


def running(
    subject: Subject, dtype: str, training: bool, mode: Mode = "graph",
    batch: int | None = None,
) -> Running | None:  # fmt: skip
    """Returns a subject in a dtype and mode, `None` if it does not run so.

    Args:
        subject: what is to run.
        dtype: in which it computes.
        training: the mode of layers.
        mode: how it runs.
        batch: so many examples instead of those of the domains.
    """
    key = "running", dtype, training, mode, batch
    if key not in subject.cache:
        try:
            with np.errstate(all="ignore"):  # constants that the dtype has not
                subject.cache[key] = Running(
                    subject, dtype, training, mode, batch
                )
        except Exception:  # whatever the user's code, or XLA, raises
            subject.cache[key] = None
    found = subject.cache[key]
    assert found is None or isinstance(found, Running)
    return found


def as_before(subject: Subject, run: Running, training: bool) -> bool:
    """Whether training makes no difference to what was looked at before."""
    before = running(subject, run.dtype, False, run.mode)
    if not training or False not in subject.modes or before is None:
        return False
    return all(
        np.array_equal(run(point).values, before(point).values)
        for point in map(list, zip(*subject.sample(3, salt=3)))
    )


class Running:
    """See `running`.

    Attributes:
        dtype: in which it computes.
        mode: how it runs.
        graph: the `FuncGraph`, `None` of what runs eagerly.
        captured: what the graph is given behind its arguments.
        results: tensors of the graph: the float results.
        slopes: number of an input -> tensor of the graph, its gradient.
        program: what looks into the graph, once it was asked for.

    Raises:
        Exception: what the user's code raises, or XLA where it compiles none.
    """

    def __init__(
        self, subject: Subject, dtype: str, training: bool, mode: Mode,
        batch: int | None = None,
    ) -> None:  # fmt: skip
        self._subject, self._training, self._batch = subject, training, batch
        self.dtype, self.mode = dtype, mode
        self.graph: Any = None
        self.captured: list[Any] = []
        self.results: list[Any] = []
        self.slopes: dict[int, Any] = {}
        self.program: Any = None
        self._works = False
        if mode != "eager":
            if evaluation(subject, training).eager:
                raise ValueError("it runs eagerly only")
            self._trace(mode == "xla")
        self(self.cut([value[0] for value in subject.sample(1)]))

    def cut(self, point: Point) -> list[Any]:
        """A point with as many examples as are wanted here."""
        if self._batch is None:
            return list(point)
        return [
            value
            if one.weight or not one.domain.shape
            else value[: self._batch]
            for one, value in zip(self._subject.inputs, point)
        ]

    def given(self, point: Point) -> list[Any]:
        """A point as tensors, for the graph's own inputs."""
        return [*self._subject.tensors(point, self.dtype), *self.captured]

    def __call__(self, point: Point) -> Answer:
        """Returns values and gradients at a point.

        Nothing where TensorFlow refuses it: an index that there is not, say.
        """
        empty = np.zeros(0)
        numbers = range(len(self._subject.inputs))
        try:
            values, slopes = self._called(point)
        except tf.errors.OpError:
            if not self._works:
                raise
            return Answer(empty, tuple(empty for _ in numbers))
        self._works = True
        return Answer(
            _array(values),
            tuple(_array(slopes[i]) if i in slopes else empty for i in numbers),
        )

    def _called(self, point: Point) -> tuple[Any, dict[int, Any]]:
        tensors = self._subject.tensors(point, self.dtype)
        if self.mode == "eager":
            return self._eager(tensors)
        values, *found = self._function(*tensors)
        return values, dict(zip(self.slopes, found))

    def _trace(self, jit: bool) -> None:
        inputs = self._subject.inputs
        some = self.cut([value[0] for value in self._subject.sample(1)])
        tensors = self._subject.tensors(some, self.dtype)
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]

        def traced(*values: Any) -> list[Any]:
            self.results = self._floats(values)
            chosen = [i for i in self._subject.trained if i < len(inputs)]
            slopes = tf.gradients(
                _total(self.results),
                [values[i] for i in chosen],
                name=BACKWARD,
            )
            self.slopes = {
                i: tf.convert_to_tensor(slope)
                for i, slope in zip(chosen, slopes)
                if slope is not None
            }
            return [_joined(self.results), *self.slopes.values()]

        made = tf.function(traced, autograph=False, jit_compile=jit)
        self._function = made.get_concrete_function(*specs)
        self.graph = self._function.graph
        self.captured = list(self._function.captured_inputs)

    def _eager(self, tensors: Sequence[Any]) -> tuple[Any, dict[int, Any]]:
        watched = [tensors[i] for i in self._subject.trained]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            results = self._floats(tensors)
            total = _total(results)
        slopes = tape.gradient(total, watched)
        return _joined(results), {
            i: tf.convert_to_tensor(slope)
            for i, slope in zip(self._subject.trained, slopes)
            if slope is not None
        }

    def _floats(self, values: Sequence[Any]) -> list[Any]:
        found = self._subject.outputs(values, self.dtype, self._training)
        return [t for t in found if t.dtype.is_floating]


def _total(results: Sequence[Any]) -> Any:
    """A sum with uneven weights, in which no slope cancels out."""
    return tf.add_n([tf.reduce_sum(_weighted(t)) for t in results])


def _weighted(result: Any) -> Any:
    shape = result.shape
    if not shape.is_fully_defined() or not shape.rank:
        return result
    weights = 1.0 + 0.3 * np.cos(np.arange(shape.num_elements()))
    return result * tf.constant(weights.reshape(shape), result.dtype)


def _joined(results: Sequence[Any]) -> Any:
    return tf.concat([tf.reshape(t, [-1]) for t in results], 0)


def _array(tensor: Any) -> Any:
    return tensor.numpy().astype(np.float64)
