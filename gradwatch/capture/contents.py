"""All that a train step depends on beside its batch: read, and put back.

Variables in Keras' own order, which is the same for a model that is built again
by the same code; their paths may differ by automatic numbers. Read in Keras
3.15.1: `layers/layer.py` (variables, seed generators among them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradwatch.capture import optimizer as rule
from gradwatch.errors import GradWatchError, expected

__all__ = ["contents", "matched", "restore"]


def contents(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields group, name and `keras.Variable` of all state of a model.

    Groups are `model` (weights, statistics, seeds), `optimizer` (of all
    optimizers, loss scales among it) and `metrics`; names are paths, the later
    ones of the same with `#2`, `#3` behind it.
    """
    seen: set[int] = set()
    names: Counter[tuple[str, str]] = Counter()
    groups = [("model", "", model.variables)]
    for optimizer in rule.optimizers(model):
        name = rule.name(model, optimizer)
        groups.append(("optimizer", f"{name}/", optimizer.variables))
    groups.append(("metrics", "", model.metrics_variables))
    for group, before, variables in groups:
        for variable in variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                name = before + variable.path
                names[group, name] += 1
                again = names[group, name]
                yield group, f"{name}#{again}" if again > 1 else name, variable


def matched(
    model: Any, arrays: Mapping[str, Sequence[Any]]
) -> list[tuple[Any, Any]]:
    """Returns what was read of a model, each with its `keras.Variable`.

    Args:
        model: a compiled `keras.Model`, built.
        arrays: group -> arrays in the order of `contents`, `None` where one is
            missing. Metrics are left out.

    Raises:
        GradWatchError: it is another model.
    """
    pairs: list[tuple[Any, Any]] = []
    for group in ("model", "optimizer"):
        mine = [v for g, _, v in contents(model) if g == group]
        theirs = arrays.get(group, ())
        shapes = [tuple(v.shape) for v in mine]
        kept = [s if a is None else a.shape for a, s in zip(theirs, shapes)]
        if len(theirs) != len(mine) or kept != shapes:
            error = expected(
                "model",
                f"{group} variables of the shapes {[*map(_shape, theirs)]}",
                shapes,
                "Build and compile it with the code that was trained.",
            )
            raise GradWatchError(error)
        pairs += zip(theirs, mine)
    return pairs


def restore(model: Any, arrays: Mapping[str, Sequence[Any]]) -> None:
    """Assigns what was read of a model to one that the same code has built.

    Args:
        model: a compiled `keras.Model`, built.
        arrays: see `matched`; `None` leaves a variable as it is.

    Raises:
        GradWatchError: it is another model.
    """
    for optimizer in rule.optimizers(model):
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
    for array, variable in matched(model, arrays):
        if array is not None:
            dtype = keras.backend.standardize_dtype(variable.dtype)
            variable.assign(tf.cast(tf.constant(array), dtype))


def _shape(array: Any) -> Any:
    return None if array is None else array.shape
