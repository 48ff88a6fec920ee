"""Process-wide hooks: what tapes return, what optimizers get.

Optimizers and tapes stand anywhere in user code, so their classes' methods are
replaced, but only while at least one watched step is being traced (eagerly:
runs); afterwards each class attribute is the original object again. A call is
handed to the listener of the graph that this thread is building (the replicas
of a step build one graph, each in its own thread), and eagerly to that of the
thread. All other calls go straight on.

Read in Keras 3.15.1: `optimizers/base_optimizer.py`,
`optimizers/loss_scale_optimizer.py` (apply, scale_loss); in tensorflow 2.21:
`python/eager/backprop.py` (GradientTape.gradient).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from tensorflow.python import pywrap_tfe

from gradwatch.capture.attributes import Hook
from gradwatch.components import LISTENERS

__all__ = [
    "Listener",
    "graph_being_built",
    "listening",
    "not_measured",
    "overrides",
    "unheard",
]


class Listener(Protocol):
    """Stands before a call of user code; `call` takes the same arguments."""

    def component(self, name: str, value: Any, weight: Any) -> None:
        """`component(name, value, weight)` was called."""

    def entered(self) -> None:
        """A tape begins to record, and no other one does."""

    def gradient(self, call: Any, target: Any, sources: Any) -> Any:
        """Instead of `tape.gradient(target, sources)`, which `call()` does."""

    def scale_loss(self, call: Any, optimizer: Any, loss: Any) -> Any:
        """Instead of `optimizer.scale_loss(loss)`."""

    def apply(self, call: Any, optimizer: Any, grads: Any, to: Any) -> Any:
        """Instead of `optimizer.apply(grads, to)`."""

    def inner(self, graph: Any, what: str) -> Listener | None:
        """Whom `what` concerns, called in a graph inside of the own one."""


def not_measured(what: str) -> str:
    """Returns what to say of `what` in a graph inside of the step's own."""
    return (
        f"`{what}` inside of a `tf.function`, a loop, a branch or a "
        "recomputed part is not measured: its tensors exist only there."
    )


_lock = threading.RLock()
_listeners: dict[tuple[int, Any], Listener] = {}
_replaced: list[tuple[type, str, Any]] = []


class _Inside(threading.local):
    """Whether this thread is in a call that no listener is to hear."""

    call = False


_inside = _Inside()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hands calls in the graph being built, or on this thread, to `listener`.

    A listener inside of another one's graph or thread takes its place.
    """
    place = threading.get_ident(), graph_being_built()
    with _lock:
        outer = _listeners.get(place)
        _listeners[place] = listener
        if not _replaced:
            _replace()
    try:
        yield
    finally:
        with _lock:
            del _listeners[place]
            if outer is not None:
                _listeners[place] = outer
            if not _listeners:
                LISTENERS.remove(_component)
                while _replaced:
                    owner, name, original = _replaced.pop()
                    setattr(owner, name, original)


def _replace() -> None:
    LISTENERS.append(_component)
    hooks = {"apply": _apply, "scale_loss": _scale_loss}
    owners = [(tf.GradientTape, "gradient", _gradient)]
    owners += [(tf.GradientTape, "__enter__", _enter)]
    for name, hook in hooks.items():
        owners += [(c, name, hook) for c in _classes() if name in vars(c)]
    for owner, name, hook in owners:
        original = vars(owner)[name]
        _replaced.append((owner, name, original))
        setattr(owner, name, functools.wraps(original)(hook(original)))


def _classes() -> list[Any]:
    """Returns all optimizers' classes that exist, users' own among them."""
    classes: list[Any] = [BaseOptimizer]
    for known in classes:  # it grows meanwhile
        classes += [c for c in known.__subclasses__() if c not in classes]
    return classes


def _listener(what: str) -> Listener | None:
    """Whom a call that is made now concerns."""
    if _inside.call:
        return None
    return _concerned(what)


def _concerned(what: str) -> Listener | None:
    thread = threading.get_ident()
    graph = own = graph_being_built()
    while graph is not None and (thread, graph) not in _listeners:
        graph = getattr(graph, "outer_graph", None)
    found = _listeners.get((thread, graph))
    if found is not None and graph is not own:
        return found.inner(own, what)
    return found


def graph_being_built() -> Any:
    """Returns the graph that this thread builds, `None` eagerly."""
    if tf.executing_eagerly():
        return None
    return tf.compat.v1.get_default_graph()


def overrides(optimizer: Any, listener: Listener) -> Iterator[Hook]:
    """Yields hooks of methods that the user has put on an instance itself.

    What these call was bound before the classes were hooked.
    """

    def apply(original: Any, grads: Any, to: Any = None) -> Any:
        return listener.apply(_once(original), optimizer, grads, to)

    if "apply" in vars(optimizer):
        yield optimizer, "apply", apply


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Nothing that this thread calls meanwhile is handed to a listener."""
    before = _inside.call
    _inside.call = True
    try:
        yield
    finally:
        _inside.call = before


def _once(call: Callable[..., Any]) -> Callable[..., Any]:
    """What `call` itself calls belongs to it: `super()`, inner optimizers."""

    def inside(*args: Any, **kwargs: Any) -> Any:
        with unheard():
            return call(*args, **kwargs)

    return inside


def _component(name: str, value: Any, weight: Any) -> None:
    if _inside.call:
        # While a loss is built ahead: this `tf.function` is traced only now.
        graph = tf.compat.v1.get_default_graph()
        if not getattr(graph, "name", "scratch").startswith("scratch"):
            _concerned("component")
        return
    listener = _concerned("component")
    if listener is not None:
        listener.component(name, value, weight)


def _enter(original: Any) -> Any:
    def enter(self: Any) -> Any:
        alone = pywrap_tfe.TFE_Py_TapeSetIsEmpty()
        listener = _listener("tf.GradientTape") if alone else None
        if listener is not None:
            listener.entered()
        return original(self)

    return enter


def _gradient(original: Any) -> Any:
    def gradient(
        self: Any, target: Any, sources: Any, *args: Any, **kwargs: Any
    ) -> Any:
        def call() -> Any:
            return original(self, target, sources, *args, **kwargs)

        listener = _listener("tf.GradientTape.gradient")
        if listener is None:
            return call()
        return listener.gradient(call, target, sources)

    return gradient


def _scale_loss(original: Any) -> Any:
    def scale_loss(self: Any, loss: Any) -> Any:
        call = functools.partial(original, self)
        listener = _listener("scale_loss")
        if listener is None:
            return call(loss)
        return listener.scale_loss(_once(call), self, loss)

    return scale_loss


def _apply(original: Any) -> Any:
    def apply(
        self: Any, grads: Any, trainable_variables: Any = None, **more: Any
    ) -> Any:
        call = functools.partial(original, self, **more)
        listener = _listener("optimizer.apply")
        if listener is None:
            return call(grads, trainable_variables)
        return listener.apply(_once(call), self, grads, trainable_variables)

    return apply
