"""Pre-flight: a few steps on a few batches, judged, and all put back.

`check` measures with the code that watches a `fit`, and asks the same rules.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwatch.callback import GradWatch
from gradwatch.errors import GradWatchError, expected
from gradwatch.records import Finding

__all__ = ["check"]

# Fewer than a window of 16: rules on progress have nothing to say yet.
_STEPS = 12


def check(
    model: Any, x: Any, y: Any = None, *, batch_size: int = 32
) -> list[Finding]:
    """Says what is wrong with a model and its data before it is trained.

    Trains 12 steps on the first batches, each an X-ray, and puts all variables
    of the model, its optimizer and its metrics back as they were. What the
    rules can tell of the data and of the set-up in so few steps is told: NaN,
    missing and zero gradients, targets and outputs that do not fit the loss,
    how weights begin.

    Args:
        model: a compiled `keras.Model`.
        x: inputs, an array or tensor `[examples, ...]` or a tuple, list or
            dict of them; or a `tf.data.Dataset` of batches, of which the first
            12 are read.
        y: targets, in the same way; none with a Dataset.
        batch_size: examples of a step; not used with a Dataset.

    Returns:
        The findings, as `watch.findings` has them; empty if nothing is wrong.

    Raises:
        GradWatchError: the arguments are not as above.
        UnsupportedError: the model runs in a way that cannot be watched.
    """
    if not isinstance(model, keras.Model) or not model.compiled:
        raise GradWatchError(
            expected(
                "model",
                "a compiled `keras.Model`",
                model,
                "Call `model.compile(optimizer, loss)` first.",
            )
        )
    batches = _batches(x, y, batch_size)
    with tempfile.TemporaryDirectory() as logdir:
        watch = GradWatch(
            logdir, name="check", xray_every_steps=1, budget=1.0, blackbox="off"
        )
        with (
            _put_back(model, batches),
            contextlib.suppress(_Refused),
            warnings.catch_warnings(),
        ):
            _fit(model, batches, watch)
        return watch.findings


class _Refused(Exception):
    """Keras has ended `fit`; findings say why."""


def _fit(model: Any, batches: Any, watch: GradWatch) -> None:
    warnings.filterwarnings("ignore", "Your input ran out of data")
    try:
        model.fit(batches, verbose=0, shuffle=False, callbacks=[watch])
    except ValueError as error:
        # No trainable variable has a gradient: a finding, not an error.
        if not watch.findings:
            raise
        raise _Refused from error


def _batches(x: Any, y: Any, batch_size: int) -> Any:
    """The first batches as a Dataset; how many there are is not said."""
    if isinstance(x, tf.data.Dataset):
        batches = x.repeat()
    else:
        data = _tuples(x) if y is None else (_tuples(x), _tuples(y))
        leaves = keras.tree.flatten(data)
        if not leaves or not all(np.ndim(leaf) for leaf in leaves):
            raise GradWatchError(
                expected(
                    "x",
                    "arrays `[examples, ...]`, or a `tf.data.Dataset`",
                    x,
                    "Take some examples of a generator first.",
                )
            )
        rows = batch_size * _STEPS
        few = keras.tree.map_structure(lambda leaf: leaf[:rows], data)
        batches = tf.data.Dataset.from_tensor_slices(few)
        batches = batches.batch(batch_size).repeat()
    # Rules that ask for the plan must not take 12 steps for it.
    return batches.take(_STEPS).filter(lambda *batch: True)


def _tuples(data: Any) -> Any:
    """Lists of arrays as tuples: a Dataset would stack a list."""
    if isinstance(data, list) and data and np.ndim(data[0]):
        return tuple(data)
    return data


@contextlib.contextmanager
def _put_back(model: Any, batches: Any) -> Iterator[None]:
    """Puts all state of a model back as it was, or as it began."""
    model._symbolic_build(data_batch=next(iter(batches)))
    before = [(v, v.numpy()) for v in _variables(model)]
    history, stopped = getattr(model, "history", None), model.stop_training
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
        model.history, model.stop_training = history, stopped


def _variables(model: Any) -> Iterator[Any]:
    """Yields those of the model, of its metrics and of its optimizers."""
    yield from model.variables
    yield from model.metrics_variables
    for optimizer in vars(model).values():
        if isinstance(optimizer, keras.optimizers.Optimizer):
            yield from optimizer.variables
