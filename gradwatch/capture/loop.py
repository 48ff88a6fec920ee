"""A loop of the user's own: where its steps begin and end.

A step begins with its first tape and ends when the first optimizer seen has
been applied; or it is what `with watch.step()` bounds. A `tf.function` of the
user's is measured in its own graph and for good: it keeps what was traced into
it.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from gradwatch.capture.hooks import graph_being_built, listening
from gradwatch.capture.step import WatchedStep
from gradwatch.capture.trace import Trace

__all__ = ["Loop"]


class Loop:
    """Hears what a thread calls, or a graph is built of, and parts it in steps.

    Args:
        step: what the loop's steps have in common.
        ended: called with the seconds that a step took, when one has ended
            that was no part of a graph.
    """

    def __init__(
        self, step: WatchedStep, ended: Callable[[float], None]
    ) -> None:
        self._step = step
        self._ended = ended
        self._trace: Trace | None = None
        self._bound = False  # whether `step` says where the step ends
        self._began = 0.0
        self._first: Any = None
        self._graphs: weakref.WeakKeyDictionary[Any, Loop] = (
            weakref.WeakKeyDictionary()
        )

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The thread is heard meanwhile."""
        try:
            with listening(self):
                yield
        finally:
            self._trace = None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """What happens meanwhile is one step, in a graph as well."""
        here = self
        graph = graph_being_built()
        if graph is not None:
            here = self.inner(graph, "step")
        here._trace, here._bound = None, True
        trace = here._open()
        try:
            with trace.attributes():
                yield
        finally:
            here._bound = False
        if trace.heard:
            here._finish(trace)

    def inner(self, graph: Any, what: str) -> Loop:
        """See `Listener`: a `tf.function` of the user's is being traced."""
        return self._graphs.setdefault(graph, Loop(self._step, self._ended))

    def component(self, name: str, value: Any, weight: Any) -> None:
        """See `Listener`; outside of a step it is a validation, say."""
        if self._trace is not None:
            self._trace.component(name, value, weight)

    def entered(self) -> None:
        """See `Listener`: a step begins where its first tape does."""
        self._open()

    def gradient(self, call: Any, target: Any, sources: Any) -> Any:
        """See `Listener`."""
        return self._open().gradient(call, target, sources)

    def scale_loss(self, call: Any, optimizer: Any, loss: Any) -> Any:
        """See `Listener`."""
        return self._open().scale_loss(call, optimizer, loss)

    def apply(self, call: Any, optimizer: Any, grads: Any, to: Any) -> Any:
        """See `Listener`."""
        trace = self._open()
        result = trace.apply(call, optimizer, grads, to)
        self._first = optimizer if self._first is None else self._first
        if optimizer is self._first and not self._bound:
            self._finish(trace)
        return result

    def _open(self) -> Trace:
        """The step that is going on."""
        if self._trace is None:
            self._began = time.perf_counter()
            self._trace = Trace(self._step, None)
        return self._trace

    def _finish(self, trace: Trace) -> None:
        with self._step.blind_when_faulty():
            trace.finish()
        self._trace = None
        if tf.executing_eagerly():
            self._ended(time.perf_counter() - self._began)
