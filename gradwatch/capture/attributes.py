"""Instance attributes that stand before methods for a while.

`object.__setattr__` keeps Keras' tracking out of it; afterwards each instance
has the attributes that it had before. A hook is for the thread that has put it
there: replicas of a step are traced in threads of their own, and share model,
loss and optimizer.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["Hook", "hooked"]

Hook = tuple[Any, str, Callable[..., Any]]
"""An instance, a method's name, and what is called instead: `f(original, ...)`
with the method's own arguments behind."""

_MISSING = object()
_lock = threading.Lock()


class _Place:
    """A method of an instance that is hooked.

    Args:
        owner: the instance.
        name: the method's.

    Attributes:
        hooks: thread -> what it calls instead, the last one first in line.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.hooks: dict[int, list[Callable[..., Any]]] = {}
        self._owner, self._name = owner, name
        self._before = vars(owner).get(name, _MISSING)
        self._original = getattr(owner, name)

        @functools.wraps(self._original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._last()(*args, **kwargs)

        object.__setattr__(owner, name, call)

    def add(self, hook: Callable[..., Any]) -> None:
        """Lets `hook` stand before what this thread would call now."""
        hook = functools.partial(hook, self._last())
        self.hooks.setdefault(threading.get_ident(), []).append(hook)

    def take(self) -> None:
        """Takes this thread's last hook away; the last of all restores."""
        mine = self.hooks[threading.get_ident()]
        mine.pop()
        if not mine:
            del self.hooks[threading.get_ident()]
        if self.hooks:
            return
        if self._before is _MISSING:
            object.__delattr__(self._owner, self._name)
        else:
            object.__setattr__(self._owner, self._name, self._before)

    def _last(self) -> Callable[..., Any]:
        mine = self.hooks.get(threading.get_ident())
        return mine[-1] if mine else self._original


_places: dict[tuple[int, str], _Place] = {}


@contextlib.contextmanager
def hooked(hooks: Iterable[Hook]) -> Iterator[None]:
    """Instance attributes that stand before methods meanwhile."""
    standing = []
    try:
        for owner, name, hook in hooks:
            key = id(owner), name
            with _lock:
                if key not in _places:
                    _places[key] = _Place(owner, name)
                _places[key].add(hook)
            standing.append(key)
        yield
    finally:
        with _lock:
            for key in reversed(standing):
                _places[key].take()
                if not _places[key].hooks:
                    del _places[key]
