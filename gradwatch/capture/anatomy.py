"""The Anatomy of a Keras model: frozen facts, read once.

Read in Keras 3.15.1: `layers/layer.py` (_flatten_layers, variables),
`trainers/trainer.py` (compile).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwatch.records import Anatomy, Cut, Layer, Variable

__all__ = ["activation", "anatomy", "key", "layer_path", "subjects"]


def key(variable: Any) -> int:
    """Returns what is the same for a `keras.Variable` and its `tf.Variable`."""
    return id(getattr(variable, "_value", variable))


def subjects(model: Any) -> dict[int, str]:
    """Returns `key` of each variable -> the name it is reported under.

    Keras' path; where several variables share a path, the later ones get
    `#2`, `#3` behind it.
    """
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    for variable in model.variables:
        path = variable.path
        seen[path] = seen.get(path, 0) + 1
        suffix = f"#{seen[path]}" if seen[path] > 1 else ""
        names[key(variable)] = path + suffix
    return names


def layer_path(layer: Any) -> str:
    """Returns the name that a layer is reported under: Keras' path."""
    return str(layer.path or layer.name)


def activation(layer: Any) -> str:
    """Returns the name of a layer's activation, `""` where it has none."""
    return _name(getattr(layer, "activation", None))


def anatomy(
    model: Any, planned_steps: int, resumed_from: str, cuts: Sequence[Cut] = ()
) -> Anatomy:
    """Returns the facts about `model` as it stands now.

    Args:
        model: a compiled `keras.Model`, built or not.
        planned_steps: training batches planned in this fit; 0 = unknown.
        resumed_from: id of the run that this one goes on from.
        cuts: why variables have no gradient.
    """
    names = subjects(model)
    return Anatomy(
        model=model.name,
        layers=tuple(
            Layer(
                layer_path(layer),
                type(layer).__name__,
                activation(layer),
            )
            for layer in model._flatten_layers(include_self=False)
        ),
        variables=tuple(
            Variable(
                names[key(v)],
                tuple(v.shape),
                keras.backend.standardize_dtype(v.dtype),
                bool(v.trainable),
                _scale(v),
            )
            for v in model.variables
        ),
        loss=_plain(model.loss),
        metrics=tuple(m.name for m in model.metrics),
        optimizer=_config(getattr(model, "optimizer", None)),
        planned_steps=planned_steps,
        mode={
            "jit_compile": bool(model.jit_compile),
            "run_eagerly": bool(model.run_eagerly),
            "steps_per_execution": model.steps_per_execution,
            "devices": _devices(),
            "dtypes": _dtypes(model),
        },
        resumed_from=resumed_from,
        cuts=tuple(cuts),
    )


def _devices() -> list[str]:
    """Names what TensorFlow computes on: `CPU`, or each GPU as its maker does.

    Read in TensorFlow 2.21: `python/framework/config.py`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    details = map(tf.config.experimental.get_device_details, gpus)
    return [d.get("device_name", "GPU") for d in details] or ["CPU"]


def _dtypes(model: Any) -> list[str]:
    """Names what the layers compute in."""
    layers = model._flatten_layers(include_self=False)
    return sorted({str(layer.compute_dtype) for layer in layers})


def _scale(variable: Any) -> float:
    """Root mean square of the entries, NaN where that means nothing."""
    value = tf.convert_to_tensor(variable.value)
    if not value.dtype.is_floating or 0 in value.shape:
        return float("nan")
    size = float(np.prod(value.shape))
    norm = tf.norm(tf.cast(value, tf.float32))
    return float(norm) / size**0.5


def _config(thing: Any) -> dict[str, Any]:
    """Class and configuration; a user's `get_config` may fail."""
    if thing is None:
        return {}
    config: dict[str, Any] = {"class_name": _own(type(thing))}
    with contextlib.suppress(Exception):
        config |= {k: _plain(v) for k, v in thing.get_config().items()}
    return config


def _name(thing: Any) -> str:
    if thing is None:
        return ""
    return str(getattr(thing, "__name__", type(thing).__name__))


def _plain(value: Any) -> Any:
    """Plain data of a configuration: objects become their config or name."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, keras.losses.Loss):
        return _config(value)
    if isinstance(value, np.generic):
        return value.item()
    return _own(value)


def _own(thing: Any) -> str:
    """Name of a function or class; with its module if Keras has a loss so."""
    name = _name(thing)
    module = str(getattr(thing, "__module__", ""))
    if module.split(".")[0] != "keras":
        with contextlib.suppress(ValueError):
            keras.losses.get(name)
            return f"{module}.{name}"
    return name
