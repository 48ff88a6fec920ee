"""Makes a `Subject` of what the user gives."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from gradwatch.audit.domain import Domain, stated_domains
from gradwatch.audit.layers import layer_subject
from gradwatch.audit.models import model_subject
from gradwatch.audit.places import defined_at
from gradwatch.audit.subject import Call, Input, Subject
from gradwatch.audit.targets import Pair, chosen, known
from gradwatch.errors import GradWatchError, expected

__all__ = ["subject_of"]

_TARGETS = {"y_true", "true", "target", "targets", "label", "labels"}
_DO = (
    "State the arguments: inputs={name: shape, shape and range, or array}, "
    "with a shape and a range such as ((4, 3), (0, 1))."
)


def subject_of(thing: Any, inputs: Any, seed: int) -> Subject:
    """Returns what is to be audited as checks see it.

    Args:
        thing: a loss, an activation, a layer, a compiled model, a function.
        inputs: what the user states of its inputs, see `audit`.
        seed: of everything that is drawn.

    Raises:
        GradWatchError: it is nothing of these, or cannot be called.
    """
    if inspect.isclass(thing) or not callable(thing):
        raise GradWatchError(
            expected(
                "fn_or_layer_or_loss",
                "a function, a `keras.losses.Loss`, a `keras.Layer` or a "
                "compiled `keras.Model`",
                thing,
                "Make an object of a class first.",
            )
        )
    if isinstance(thing, keras.Model) and isinstance(inputs, tuple):
        return model_subject(thing, inputs, seed)
    if isinstance(thing, keras.Layer):
        return layer_subject(thing, inputs, seed)
    if isinstance(thing, keras.losses.Loss):
        return _loss(thing, _name(thing), _loss_call(thing), inputs, seed)
    names = _arguments(thing)
    stated = set(inputs) if isinstance(inputs, Mapping) else set()
    call = _function_call(thing)
    if len(names) == 1 and stated <= set(names):
        return _activation(thing, names[0], call, inputs, seed)
    if len(names) == 2 and (not stated or _TARGETS & {*map(str.lower, names)}):
        return _loss(thing, _name(thing), call, inputs, seed)
    return _function(thing, call, inputs, names, seed)


def _loss(thing: Any, name: str, call: Call, inputs: Any, seed: int) -> Subject:
    names = ["y_true", "y_pred"]
    if not isinstance(thing, keras.losses.Loss):
        names = _arguments(thing)[:2]
    targets = int(names[1].lower() in _TARGETS)
    stated = stated_domains(inputs, names)
    ordered = [stated.get(names[i]) for i in (targets, 1 - targets)]
    pair = _domains(thing, call, ordered, targets, seed)
    found = (
        Input(names[i], pair[i != targets], trained=i != targets)
        for i in range(2)
    )
    return Subject(
        name, "loss", call, tuple(found), defined_at(thing), seed=seed,
        original=thing,
    )  # fmt: skip


def _domains(
    thing: Any, call: Call, stated: Sequence[Domain | None], targets: int,
    seed: int,
) -> Pair:  # fmt: skip
    """Domains of targets and predictions: stated, known, or found by trying."""
    first, second = stated
    if first is not None and second is not None:
        return Pair(first, second)
    inner = getattr(thing, "fn", thing)
    settings = getattr(thing, "_fn_kwargs", {})
    name = getattr(inner, "__name__", "")
    if first is None and second is None and _of_keras(inner):
        pair = known(name, bool(settings.get("from_logits")))
        if pair is not None:
            return pair

    def ordered(true: Any, predicted: Any, dtype: str) -> Any:
        values = (predicted, true) if targets else (true, predicted)
        with keras.StatelessScope():
            return call(values, dtype, False)

    random = np.random.default_rng(seed)
    own = _signature(thing)
    shapes = own[1 - targets] if len(own) == 2 else None
    found = chosen(ordered, random, stated, _text(thing), shapes)
    if isinstance(found, Pair):
        return found
    raise GradWatchError(
        f"`{_name(thing)}` could be called with no targets and predictions "
        f"that were tried. The last error: {found} {_DO}"
    )


def _activation(
    thing: Any, name: str, call: Call, inputs: Any, seed: int
) -> Subject:
    stated = stated_domains(inputs, [name])
    own = _signature(thing)
    tried = [stated[name]] if name in stated else [
        *(Domain(shape) for shape in own[:1]),
        Domain((3, 6)), Domain((6,)), Domain((2, 4, 4, 3)), Domain(()),
    ]  # fmt: skip
    why: list[Exception] = []
    for domain in tried:
        subject = Subject(
            _name(thing), "activation", call, (Input(name, domain),),
            defined_at(thing), seed=seed, original=thing,
        )  # fmt: skip
        failed = subject.failure()
        if failed is None:
            return subject
        why.append(failed)
    raise GradWatchError(f"`{_name(thing)}` cannot be called: {why[0]} {_DO}")


def _function(
    thing: Any, call: Call, inputs: Any, names: Sequence[str], seed: int
) -> Subject:
    stated = stated_domains(inputs, list(names) or list(inputs or ()))
    if not stated and len(names) > 2:
        stated = dict.fromkeys(names, Domain((4, 3)))
    missing = [name for name in names if name not in stated]
    if missing or not stated:
        raise GradWatchError(
            f"`{_name(thing)}` has arguments of which nothing is known: "
            f"{', '.join(missing) or 'all'}. {_DO}"
        )
    found = [
        Input(name, domain, domain.smooth and name not in _TARGETS)
        for name, domain in stated.items()
    ]
    subject = Subject(
        _name(thing), "function", call, tuple(found), defined_at(thing),
        seed=seed, original=thing,
    )  # fmt: skip
    why = subject.failure()
    if why is None:
        return subject
    raise GradWatchError(f"`{subject.name}` cannot be called: {why} {_DO}")


def _arguments(thing: Any) -> list[str]:
    """Names of the arguments that must be given."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return [
        one.name
        for one in parameters
        if one.kind in kinds and one.default is inspect.Parameter.empty
    ]


def _signature(thing: Any) -> list[tuple[int, ...]]:
    """Shapes of the arguments of a `tf.function`, where it has a signature."""
    specs = getattr(thing, "input_signature", None) or ()
    return [
        tuple(size or 3 for size in spec.shape)
        for spec in specs
        if spec.shape.rank is not None
    ]


def _function_call(thing: Any) -> Call:
    def call(values: Sequence[Any], dtype: str, training: bool) -> Any:
        return thing(*values)

    return call


def _loss_call(loss: Any) -> Call:
    """A loss computes in its own dtype, whatever it gets."""
    whole = type(loss).__call__ is not keras.losses.Loss.__call__

    def of(dtype: str) -> Any:
        # Its own copies go through its configuration (Keras 3.15.1).
        other = object.__new__(type(loss))
        vars(other).update(vars(loss))
        other._dtype_policy = keras.DTypePolicy(dtype)
        other._dtype = dtype
        return other if whole else other.call

    def call(values: Sequence[Any], dtype: str, training: bool) -> Any:
        return of(dtype)(*values)

    return call


def _text(thing: Any) -> str:
    """Name and code of a loss, as far as they are known."""
    code = getattr(thing, "fn", None) or thing
    if isinstance(thing, keras.losses.Loss) and code is thing:
        code = type(thing)
    with contextlib.suppress(OSError, TypeError):
        return f"{_name(thing)}\n{inspect.getsource(code)}"
    return _name(thing)


def _of_keras(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("keras.")


def _name(thing: Any) -> str:
    if isinstance(thing, functools.partial):
        return _name(thing.func)
    return str(getattr(thing, "__name__", type(thing).__name__))
