"""What is the same layer or variable of two models, whatever it is called.

Keras counts names on in a process: the second model's `dense` is `dense_1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher

from gradwatch.records import Anatomy, Layer

__all__ = ["names", "uncounted"]


def names(one: Anatomy, other: Anatomy) -> Callable[[str], str]:
    """Returns what translates names of the other run into those of the first.

    Layers are the same where class and name, without its number, are, as far as
    their order allows; variables where their layers are. What only the other
    model has, and is called as something else in the first, gets a `(B)`.
    """
    known = dict(_layers(one, other))
    theirs = {each.path for each in other.layers} - known.keys()
    taken = {each.path for each in one.layers}
    known |= {path: f"{path} (B)" for path in theirs & taken}
    paths = sorted(known, key=len, reverse=True)
    for variable in other.variables:
        for path in paths:
            if variable.path.startswith(f"{path}/"):
                rest = variable.path.removeprefix(path)
                known[variable.path] = f"{known[path]}{rest}"
                break
    # What an output or a part of the loss is called by is its layer's name.
    last = {_last(path): _last(found) for path, found in known.items()}
    known = {**last, **known}
    return lambda subject: known.get(subject, subject)


def uncounted(name: str) -> str:
    """Returns a name without the number that Keras gives it."""
    return re.sub(r"_\d+$", "", name)


def _layers(one: Anatomy, other: Anatomy) -> Iterator[tuple[str, str]]:
    """Yields the paths of a layer in the other model and in the first."""
    a, b = ([_key(layer) for layer in each.layers] for each in (one, other))
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    for i, j, size in matcher.get_matching_blocks():
        for k in range(size):
            yield other.layers[j + k].path, one.layers[i + k].path


def _key(layer: Layer) -> tuple[str, str]:
    return layer.kind, uncounted(_last(layer.path))


def _last(path: str) -> str:
    return path.rpartition("/")[2]
