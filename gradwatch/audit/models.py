"""Makes a `Subject` of a compiled model and a batch: its loss by weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradwatch.audit.domain import parse_domain
from gradwatch.audit.layers import computing_in, mapped, weights_of
from gradwatch.audit.places import defined_at
from gradwatch.audit.subject import Input, Subject
from gradwatch.errors import GradWatchError, expected

__all__ = ["model_subject"]


def model_subject(model: Any, batch: tuple[Any, ...], seed: int) -> Subject:
    """Returns the loss of a model as a function of its weights.

    Args:
        model: a compiled `keras.Model` of one input and one output.
        batch: `(x, y)`, arrays `[examples, ...]`.
        seed: of everything that is drawn.

    Raises:
        GradWatchError: it is not compiled, or the batch is none.
    """
    if not model.compiled or len(batch) != 2:
        raise GradWatchError(
            expected(
                "fn_or_layer_or_loss",
                "a compiled `keras.Model`, with `inputs=(x, y)`",
                model,
                "Call `model.compile(optimizer, loss)` first.",
            )
        )
    arguments = tuple(
        Input(name, parse_domain(name, np.asarray(data)), trained=False)
        for name, data in zip(("x", "y"), batch)
    )
    if not model.built:
        model.build(np.shape(batch[0]))
    weights = weights_of(model)

    def call(values: Sequence[Any], dtype: str, training: bool) -> Any:
        x, y, *given = values
        with (
            computing_in(model, dtype),
            _losses_in(model, dtype),
            mapped(model, weights, given, dtype),
        ):
            predictions = model(x, training=training)
            return model.compute_loss(x, y, predictions, training=training)

    subject = Subject(
        model.name, "model", call, (*arguments, *weights.values()),
        defined_at(model), modes=(True,), seed=seed, original=model,
    )  # fmt: skip
    why = subject.failure()
    if why is not None:
        raise GradWatchError(f"`{model.name}` cannot be called: {why}")
    return subject


@contextlib.contextmanager
def _losses_in(model: Any, dtype: str) -> Iterator[None]:
    """Inside, the losses of a compiled model compute in `dtype`.

    They cast what they get (Keras 3.15.1, `losses/loss.py`, `__call__`).
    """
    whole = model._compile_loss
    parts = [part.loss for part in getattr(whole, "_flat_losses", None) or ()]
    losses = [loss for loss in (whole, *parts) if hasattr(loss, "_dtype")]
    before = [(loss, loss._dtype) for loss in losses]
    for loss, _ in before:
        loss._dtype = dtype
    try:
        yield
    finally:
        for loss, own in before:
            loss._dtype = own
