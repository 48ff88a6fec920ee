"""Where an operation comes from: the user's source line, the Keras layer.

An operation of a graph keeps the stack of the Python call that made it, and its
name begins with the scopes that were open. Read in tensorflow 2.21:
`python/framework/ops.py` (Operation.traceback); in Keras 3.15.1:
`layers/layer.py` (__call__), `backend/tensorflow/core.py` (name_scope).
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import optree
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

__all__ = ["Line", "layer_of", "line_of"]


class Line(NamedTuple):
    """A line of source code.

    Attributes:
        file: as Python names it, mostly a whole path.
        line: counted from 1.
        function: name of the function that it is in.
        code: its text, `""` where it cannot be read.
    """

    file: str
    line: int
    function: str
    code: str


def _folder(file: str | None) -> str:
    """As frames name it: links on the way there are not followed."""
    return f"{Path(file or '').absolute().parent}/"


_HERE = Path(__file__).absolute().parent
_LIBRARIES = (
    _folder(tf.__file__),
    _folder(keras.__file__),
    _folder(optree.__file__),  # maps Keras' nests
    f"{_HERE}/",
    f"{_HERE.parent / 'capture'}/",
    f"{_HERE.parent / 'autopsy'}/",
    f"{_HERE.parent / 'audit'}/",
)
_CALLERS = (
    trainer.__file__,
    f"{_HERE.parent / 'autopsy' / 'trace.py'}",
    f"{_HERE.parent / 'audit' / 'subject.py'}",
    f"{_HERE.parent / 'audit' / 'traced.py'}",
    f"{_HERE.parent / 'audit' / 'running.py'}",
)
"""Files that call a step, or ask for gradients in its stead."""

_INSTALLED = ("/site-packages/", "/dist-packages/")
_STANDARD = (_folder(os.__file__), "<frozen ")
_GENERATED = "__autograph_generated_file"


def line_of(operation: Any) -> Line | None:
    """Returns the user's line that made an operation.

    That is the innermost call inside of the train step from a file that is
    neither TensorFlow's, Keras', gradwatch's, Python's own nor installed; where
    there is none, from one that is installed. The line that called `fit` says
    nothing: it is none of the step's.

    Args:
        operation: a `tf.Operation` of a graph.

    Returns:
        `None` where the step has no such line: a layer of Keras', say, that a
        functional model calls.
    """
    frames = _inside_step(operation.traceback or ())
    users = [frame for frame in frames if not _known(frame.filename)]
    own = [frame for frame in users if not _installed(frame.filename)]
    if not users:
        return None
    frame = (own or users)[-1]
    code = linecache.getline(frame.filename, frame.lineno).strip()
    return Line(frame.filename, frame.lineno, frame.name, code)


def _inside_step(frames: Any) -> list[Any]:
    """The frames that a step's last caller has called; all if there is none."""
    inside: list[Any] = []
    for frame in frames:
        inside.append(frame)
        if frame.filename in _CALLERS:
            inside = []
    return inside


def _known(file: str) -> bool:
    if file.startswith(_LIBRARIES) or _GENERATED in file:
        return True
    return file.startswith(_STANDARD) and not _installed(file)


def _installed(file: str) -> bool:
    return any(folder in file for folder in _INSTALLED)


def layer_of(operation: Any, layers: Sequence[str]) -> str:
    """Returns the path of the innermost layer that an operation was made in.

    Args:
        operation: a `tf.Operation` of a graph.
        layers: paths of the model's layers.

    Returns:
        One of `layers`, `""` if its name's scopes match none. A layer that is
        called outside of its parents is known by the end of its path, if that
        is no other one's.
    """
    scopes = operation.name.split("/")[:-1]
    ranks = {path: _rank(path.split("/"), scopes) for path in layers}
    best = max(ranks.values(), default=())
    found = [path for path, rank in ranks.items() if rank == best]
    return found[0] if best and len(found) == 1 else ""


def _rank(names: list[str], scopes: list[str]) -> tuple[int, ...]:
    """How well scopes fit a layer's path, empty if they do not.

    The whole path before a part of it, then what ends further inside.
    """
    best: tuple[int, ...] = ()
    for length in range(1, len(names) + 1):
        for end in range(length, len(scopes) + 1):
            pairs = zip(names[-length:], scopes[end - length : end])
            alike = [_alike(name, scope) for name, scope in pairs]
            if all(alike):
                rank = length == len(names), end, length, sum(alike)
                best = max(best, rank)
    return best


def _alike(name: str, scope: str) -> int:
    """How well a scope fits a layer's name: 0 is not at all.

    Keras opens a layer's scope before it calls it, so in the call itself
    TensorFlow has mostly put a number behind the name.
    """
    if scope == name:
        return 1
    stem, _, number = scope.rpartition("_")
    return 2 if stem == name and number.isdigit() else 0
