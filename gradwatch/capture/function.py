"""A train function as the runtime holds it, without the graphs of its trace.

What Keras makes is a `tf.function`. For as long as it lives it keeps the graph
that it was traced into, the functions in it and copies of their definitions. To
run them TensorFlow has made all of it once more; nothing asks for the first
again, not even the message of an error. A process that trains 1,000 variables
takes 2.8 GB with the graphs of the everyday step and its X-ray, 1.9 without.
And a call of the runtime's function begins sooner: nothing is looked up.

Read in Keras 3.15.1: `backend/tensorflow/trainer.py` (_make_function); in
tensorflow 2.21: `python/eager/polymorphic_function/atomic_function.py`, where
graphs and definitions are caches, made again if somebody asks for them, and
`polymorphic_function.py`, which warns of functions that are traced too often.
"""

from __future__ import annotations

import gc
import inspect
import logging
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

__all__ = ["TrainFunction"]

_log = logging.getLogger(__name__)

_MANY = 5000
"""Operations, some 30 MB with all that belongs to them; to find who else uses
graphs takes 0.2 s."""


class TrainFunction:
    """What runs an execution of train steps, traced when it is first called.

    Args:
        model: the `keras.Model`, compiled.
        step: what Keras is to call for each step.
    """

    def __init__(self, model: Any, step: Callable[[Any], Any]) -> None:
        self._make: Callable[[], Any] = lambda: model._make_function(step)
        self._keras: Any = None
        self._runtime: _Runtime | None = None

    def __call__(self, iterator: Any) -> Any:
        """Runs one execution with data from an iterator; returns its logs.

        Batches of another kind than those of the first call are left to a
        function of Keras', which relaxes shapes as it does for anybody.
        """
        runtime = self._runtime
        if runtime is not None and runtime.takes(iterator):
            return runtime(iterator)
        first = self._keras is None and runtime is None
        if self._keras is None:
            self._keras = self._make()
        logs = self._keras(iterator)
        if first and _Runtime.possible(iterator):
            self._release(iterator)
        return logs

    def _release(self, iterator: Any) -> None:
        """Has the runtime's function called from now on."""
        try:
            made = inspect.getclosurevars(self._keras).nonlocals
            self._runtime = _Runtime(made["multi_step_on_iterator"], iterator)
            del made
            self._keras = None
            self._runtime.release_graphs()
        except Exception:  # eager, or made otherwise: it is called as it is
            _log.debug("The graphs of a trace are kept", exc_info=True)


class _Runtime:
    """A traced function over an iterator, called without its `tf.function`.

    Args:
        function: the `tf.function`, traced for `iterator`.
        iterator: a `tf.data.Iterator`.
    """

    def __init__(self, function: Any, iterator: Any) -> None:
        concrete = function.get_concrete_function(iterator)
        kind = concrete.function_type
        self._captures = kind.unpack_captures(concrete.captured_inputs)
        self._call = concrete.inference_fn
        self._spec = iterator.element_spec
        # They are those of all functions of this code, of any fit.
        self._counts = polymorphic_function._frequent_tracing_detector_manager
        self._code = function._key_for_call_stats

    @staticmethod
    def possible(iterator: Any) -> bool:
        """Whether data and settings are such that a graph runs as it is."""
        one = isinstance(iterator, tf.data.Iterator)
        return one and not tf.config.functions_run_eagerly()

    def takes(self, iterator: Any) -> bool:
        """Whether it was traced for such data."""
        spec = getattr(iterator, "element_spec", None)
        return self.possible(iterator) and bool(spec == self._spec)

    def __call__(self, iterator: Any) -> Any:
        """Runs an execution, as Keras' function does."""
        inputs = tf.nest.flatten(iterator, expand_composites=True)
        outputs = self._call.call_preflattened(inputs + self._captures)
        self._counts.called_without_tracing(self._code)
        if not outputs.has_value():
            raise StopIteration
        return outputs.get_value()

    def release_graphs(self) -> None:
        """Lets go what only other traces would use; a user's own are kept."""
        every = [self._call, *self._call.children]  # theirs are among them
        if sum(len(each.graph.get_operations()) for each in every) < _MANY:
            return
        graphs = [weakref.ref(each.graph) for each in every]
        for each in every:
            each._cached_graph = each._cached_definition = None
        gc.collect()
        for each, graph in zip(every, graphs, strict=True):
            each._cached_graph = graph()
        # Each call asks how many inputs there are.
        definition = self._call.definition
        short = type(definition)(signature=definition.signature)
        self._call._cached_definition = short
