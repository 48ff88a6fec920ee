"""Where an audited thing is defined."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras

from gradwatch.reports import Source

__all__ = ["defined_at"]


def defined_at(thing: Any) -> Source | None:
    """Returns the line at which a function begins, or a class' `call`.

    `None` of what has no source: a builtin, code typed at a prompt.
    """
    if isinstance(thing, functools.partial):
        thing = thing.func
    thing = getattr(thing, "python_function", thing)
    if isinstance(thing, (keras.losses.Loss, keras.Layer)):
        thing = getattr(thing, "fn", None) or type(thing).call
    elif not inspect.isroutine(thing):
        thing = type(thing).__call__
    thing = inspect.unwrap(thing)
    try:
        file = inspect.getsourcefile(thing) or ""
        lines, first = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        return None
    name = getattr(thing, "__name__", "")
    head = next((i for i, s in enumerate(lines) if "def " in s), 0)
    return Source(file, first + head, name, lines[head].strip())
