"""Makes state before the step does, so that it can be read at its start.

A model without an `Input` layer makes its variables in the middle of its first
step, compiled metrics make theirs at its end. Both are asked to do it ahead,
symbolically, which assigns nothing. Where that fails the step makes them all
the same; then a bad very first step is not kept out of them. Read in Keras
3.15.1: `trainers/trainer.py` (_symbolic_build).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
from keras.src import backend

from gradwatch.capture import replicas
from gradwatch.capture.hooks import listening, not_measured, unheard
from gradwatch.capture.support import is_custom

__all__ = ["build_ahead", "build_layers", "build_loss", "build_metrics"]


class _Asks:
    """Hears of `component`s in functions that are traced only now."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def inner(self, graph: Any, what: str) -> None:
        """See `Listener`."""
        self._say(not_measured(what))


def build_ahead(model: Any, iterator: Any, say: Callable[[str], None]) -> None:
    """Makes the optimizer's variables, and those of metrics, before a trace.

    A `tf.function` whose first trace makes variables is traced a second time
    at once; so this halves the time to the first step. It is for models whose
    layers are built and whose train step is Keras' own, where what will be made
    is known. Keras does the same where it must (`_symbolic_build`).

    Args:
        model: a compiled model.
        iterator: where `fit` takes its batches.
        say: tells the user what cannot be measured.
    """
    if is_custom(model) or not all(la.built for la in model._flatten_layers()):
        return
    asks: Any = _Asks(say)
    with (
        contextlib.suppress(Exception),
        listening(asks),
        model.distribute_strategy.scope(),
    ):
        _build_metrics_ahead(model, iterator)
        optimizer = model.optimizer
        if not optimizer.built:
            with backend.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(model.trainable_variables)


def _build_metrics_ahead(model: Any, iterator: Any) -> None:
    made = (model._compile_metrics, model._compile_loss)
    batch = getattr(iterator, "element_spec", None)
    if batch is None or all(part is None or part.built for part in made):
        return
    batch = keras.tree.map_structure(_spec, batch)
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    options = {"training": True} if model._call_has_training_arg else {}
    with unheard():
        outputs = backend.compute_output_spec(model, x, **options)
        if model._compile_loss is not None:
            backend.compute_output_spec(
                model._compile_loss, y, outputs, weights
            )
        if model._compile_metrics is not None:
            backend.compute_output_spec(
                model.compute_metrics, x, y, outputs, weights
            )


def build_layers(model: Any, data: Any) -> None:
    """Makes the variables of layers that are not built yet.

    Args:
        model: a compiled model.
        data: a batch, as the train step gets it.
    """
    if all(layer.built for layer in model._flatten_layers()):
        return
    if type(model).call is keras.Model.call:
        return  # its `train_step` calls other models
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    # The call of `train_step`: other branches could build other layers.
    options = {"training": True} if model._call_has_training_arg else {}
    _run_symbolically(model, (x,), options)


def build_metrics(
    model: Any, compute_metrics: Any, args: Any, kwargs: Any
) -> None:
    """Makes the variables of compiled metrics that are not built yet.

    Args:
        model: a compiled model.
        compute_metrics: the model's own method.
        args: what it is about to be called with.
        kwargs: likewise.
    """
    compiled = model._compile_metrics
    if compiled is not None and not compiled.built:
        _run_symbolically(compute_metrics, args, kwargs)


def build_loss(model: Any, call: Any, args: Any, kwargs: Any) -> None:
    """Finds out which losses a compiled loss has, and makes their trackers.

    Args:
        model: a compiled model with a compiled loss.
        call: the compiled loss's own method.
        args: what it is about to be called with.
        kwargs: likewise.
    """
    if not model._compile_loss.built:
        _run_symbolically(call, args, kwargs)


def _run_symbolically(function: Any, args: Any, kwargs: Any) -> None:
    args, kwargs = keras.tree.map_structure(_spec, (args, kwargs))

    def run() -> None:
        with contextlib.suppress(Exception), unheard():
            backend.compute_output_spec(function, *args, **kwargs)

    replicas.once(run)


def _spec(leaf: Any) -> Any:
    # What each replica gets; the first one's stands for all.
    leaf = getattr(leaf, "_value_specs", (leaf,))[0]
    if not hasattr(leaf, "shape"):
        return leaf
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    return keras.KerasTensor(leaf.shape, dtype)
