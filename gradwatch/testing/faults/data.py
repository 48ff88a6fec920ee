"""Faults in the data: what a batch holds, and when it comes."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from typing import Any

import tensorflow as tf

from gradwatch.errors import UnsupportedError, expected
from gradwatch.testing.faults.fault import refuse
from gradwatch.testing.faults.in_batch import InBatch

__all__ = ["Float16Overflow", "Hang", "NanBatch", "SlowSteps"]

_TIMED = 10  # executions, at least, that tell how long one usually takes


class NanBatch(InBatch):
    """The first example of a batch is NaN, in all inputs that can hold NaN.

    Args:
        at_step: of the batch.
        value: what stands there instead, Inf, say.
    """

    def __init__(self, at_step: int, *, value: float = math.nan) -> None:
        super().__init__(at_step)
        self.value = value

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        return f"the batch's first example is {self.value}"

    def check_data(self, spec: Any) -> None:
        """See `InBatch`."""
        _check_floats(spec)

    def changed(self, batch: Any) -> Any:
        """See `InBatch`."""
        return _with_inputs(batch, self._spoilt)

    def _spoilt(self, tensor: Any) -> Any:
        spoilt = tf.fill(
            tf.shape(tensor[:1]), tf.cast(self.value, tensor.dtype)
        )
        return tf.concat([spoilt, tensor[1:]], 0)


class Float16Overflow(InBatch):
    """A batch's inputs are too large for float16, and fine in float32.

    For models that compute in float16.

    Args:
        at_step: of the batch.
        factor: by which its inputs are multiplied.
    """

    def __init__(self, at_step: int, *, factor: float = 1e6) -> None:
        super().__init__(at_step)
        self.factor = factor

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        return f"inputs are multiplied by {self.factor:g}"

    def check(self, offset: int) -> None:
        """See `Fault`."""
        super().check(offset)
        layers = self.model._flatten_layers(include_self=True)
        kinds = sorted({layer.compute_dtype for layer in layers})
        if "float16" not in kinds:
            raise UnsupportedError(
                expected(
                    "model",
                    "a layer that computes in float16",
                    ", ".join(kinds),
                    "Build it under the policy `mixed_float16`.",
                )
            )

    def check_data(self, spec: Any) -> None:
        """See `InBatch`."""
        _check_floats(spec)

    def changed(self, batch: Any) -> Any:
        """See `InBatch`."""
        return _with_inputs(
            batch, lambda tensor: tensor * tf.cast(self.factor, tensor.dtype)
        )


class Hang(InBatch):
    """A batch does not come for a while: the training thread stands still.

    Args:
        at_step: of the batch.
        seconds: how long.
    """

    def __init__(self, at_step: int, seconds: float) -> None:
        super().__init__(at_step)
        if not seconds >= 0:
            refuse("seconds", "0 or more", seconds, "It is a time.")
        self.late = seconds

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        return f"a batch comes {self.late:g} s late"


class SlowSteps(InBatch):
    """From a step on each takes several times as long: its batch comes late.

    What is usual is the median time from one execution to the next before.

    Args:
        at_step: the first slow one; at least 10 executions are before it.
        factor: how many times as long.
        seconds: by which a step becomes slower at most.
    """

    lasts = True

    def __init__(
        self, at_step: int, *, factor: float = 10.0, seconds: float = 60.0
    ) -> None:
        super().__init__(at_step)
        if not factor > 1:
            refuse("factor", "more than 1", factor, "Steps become slower.")
        self.factor = factor
        self.seconds = seconds
        self._began = 0.0
        self._usual: deque[float] = deque(maxlen=100)

    @property
    def meaning(self) -> str:
        """See `Fault`."""
        return f"steps take {self.late:.3g} s longer from now on"

    def check(self, offset: int) -> None:
        """See `Fault`."""
        super().check(offset)
        least = (_TIMED + 1) * self.executes
        if self.at_step < least:
            refuse(
                "at_step",
                f"{least} or more",
                self.at_step,
                "The steps before tell how long one usually takes.",
            )

    def execution_begins(self, step: int) -> None:
        """See `Fault`."""
        now = time.perf_counter()
        if self._began and not self.time:
            self._usual.append(now - self._began)
            usual = statistics.median(self._usual) / self.executes
            self.late = min((self.factor - 1) * usual, self.seconds)
        self._began = now
        super().execution_begins(step)


def _inputs(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple) else batch


def _with_inputs(batch: Any, change: Any) -> Any:
    """Returns a batch whose dense floating inputs are changed."""
    inputs = tf.nest.map_structure(
        lambda t: change(t) if _floating(t) else t, _inputs(batch)
    )
    return (inputs, *batch[1:]) if isinstance(batch, tuple) else inputs


def _floating(tensor: Any) -> bool:
    dense = isinstance(tensor, (tf.Tensor, tf.TensorSpec))
    return dense and bool(tensor.dtype.is_floating)


def _check_floats(spec: Any) -> None:
    inputs = tf.nest.flatten(_inputs(spec))
    if not any(map(_floating, inputs)):
        refuse(
            "x",
            "inputs that hold floating-point numbers",
            ", ".join(str(getattr(i, "dtype", i)) for i in inputs),
            "Whole numbers cannot be NaN or Inf: take another fault.",
        )
