"""Instance attributes that stand before methods for a while.

`object.__setattr__` keeps Keras' tracking out of it; afterwards each instance
has the attributes that it had before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["Hook", "hooked"]

Hook = tuple[Any, str, Callable[..., Any]]
"""An instance, a method's name, and what is called instead: `f(original, ...)`
with the method's own arguments behind."""

_MISSING = object()


@contextlib.contextmanager
def hooked(hooks: Iterable[Hook]) -> Iterator[None]:
    """Instance attributes that stand before methods meanwhile."""
    undo = []
    for owner, name, hook in hooks:
        undo.append((owner, name, vars(owner).get(name, _MISSING)))
        original = getattr(owner, name)
        before = functools.wraps(original)(functools.partial(hook, original))
        object.__setattr__(owner, name, before)
    try:
        yield
    finally:
        for owner, name, value in reversed(undo):
            if value is _MISSING:
                object.__delattr__(owner, name)
            else:
                object.__setattr__(owner, name, value)
