"""Makes a `Subject` of a Keras layer: its arguments and its weights."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwatch.audit.domain import Domain, stated_domains
from gradwatch.audit.places import defined_at
from gradwatch.audit.subject import Input, Subject
from gradwatch.errors import GradWatchError

__all__ = ["computing_in", "layer_subject", "mapped", "weights_of"]

_SHAPES = ((4, 6), (3, 5, 6), (2, 8, 8, 4), (2, 4, 6, 6, 2))
_HALF = ("float16", "bfloat16")
_DO = "State its input: inputs=((2, 8, 8, 3), (0, 1)), say."


def layer_subject(layer: Any, inputs: Any, seed: int) -> Subject:
    """Returns a layer as checks see it.

    One that is not built is copied by its configuration and built for a shape
    that it takes, which is found by trying. One that has none is built itself.

    Args:
        layer: a `keras.Layer`.
        inputs: what the user states of its arguments, see `audit`.
        seed: of everything that is drawn.

    Raises:
        GradWatchError: it cannot be called.
    """
    names = _arguments(layer)
    stated = stated_domains(inputs, names)
    why: list[Exception] = []
    for several in (1, 2):
        for domain in _tried(layer, stated):
            domains = {name: stated.get(name, domain) for name in names}
            try:
                subject = _subject(layer, domains, seed, several)
            except Exception as error:  # whatever the user's code raises
                why.append(error)
                continue
            failed = subject.failure()
            if failed is None:
                return subject
            why.append(failed)
    said = " ".join(str(why[0]).split())
    raise GradWatchError(f"`{layer.name}` cannot be called: {said} {_DO}")


def _subject(
    layer: Any, domains: dict[str, Domain], seed: int, several: int
) -> Subject:
    """One whose first argument is a tensor, or a list of several."""

    def tensor(domain: Domain) -> Any:
        value = domain.sample(np.random.default_rng(seed), 1)[0]
        return tf.constant(value, tf.int32 if domain.whole else tf.float32)

    each = list(domains.items())
    first = each[0]
    if several > 1:
        each[:1] = [(f"{first[0]}[{i}]", first[1]) for i in range(several)]
    used = layer
    if not layer.built:
        used = _copied(layer)
        used(*_grouped([tensor(domain) for _, domain in each], several))
    weights = weights_of(used)
    switch = "training" in inspect.signature(used.call).parameters

    def call(values: Sequence[Any], dtype: str, training: bool) -> Any:
        mode = {"training": training} if switch else {}
        with (
            computing_in(used, dtype),
            mapped(used, weights, values[len(each) :], dtype),
        ):
            return used(*_grouped(values[: len(each)], several), **mode)

    arguments = [
        Input(name, domain, trained=domain.smooth) for name, domain in each
    ]
    return Subject(
        layer.name, "layer", call, (*arguments, *weights.values()),
        defined_at(layer), modes=(False, True) if switch else (False,),
        seed=seed, original=used,
    )  # fmt: skip


def _copied(layer: Any) -> Any:
    """A layer like one that is not built; itself if it has no configuration."""
    try:
        return type(layer).from_config(layer.get_config())
    except Exception:  # whatever the user's class raises
        return layer


def _grouped(values: Sequence[Any], several: int) -> list[Any]:
    """Arguments of which the first is a list, if it is to be several."""
    if several == 1:
        return list(values)
    return [list(values[:several]), *values[several:]]


def weights_of(layer: Any) -> dict[Any, Input]:
    """Returns trainable weights as inputs, by `id` of the variable."""
    found = {}
    for variable in layer.trainable_variables:
        value = np.asarray(variable.value, float)
        name = variable.path.removeprefix(f"{layer.name}/")
        domain = Domain(tuple(variable.shape))
        found[id(variable)] = Input(name, domain, weight=True, value=value)
    return found


@contextlib.contextmanager
def mapped(
    layer: Any, weights: dict[Any, Input], values: Sequence[Any], dtype: str
) -> Iterator[None]:
    """Inside, variables have these values; what is assigned is forgotten.

    The scope itself would cast to each variable's own dtype (Keras 3.15.1,
    `backend/common/stateless_scope.py`).
    """
    dtype = "float32" if dtype in _HALF else dtype
    scope = keras.StatelessScope()
    for variable in layer.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            value = tf.cast(tf.convert_to_tensor(variable.value), dtype)
            scope.state_mapping[id(variable)] = value
    for key, value in zip(weights, values):
        scope.state_mapping[key] = tf.cast(value, dtype)
    with scope:
        yield


@contextlib.contextmanager
def computing_in(layer: Any, dtype: str) -> Iterator[None]:
    """Inside, a layer and all within it compute in `dtype`.

    In one of 16 bits as Keras does: the variables have 32.
    """
    policies = [(each, each._dtype_policy) for each in layer._flatten_layers()]
    policy = keras.DTypePolicy(f"mixed_{dtype}" if dtype in _HALF else dtype)
    for each, _ in policies:
        each._dtype_policy = policy
    try:
        yield
    finally:
        for each, before in policies:
            each._dtype_policy = before


def _arguments(layer: Any) -> list[str]:
    """Names of the tensors that `call` must be given."""
    parameters = list(inspect.signature(layer.call).parameters.values())
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    names = [
        one.name
        for one in parameters
        if one.kind in kinds
        and one.default is inspect.Parameter.empty
        and one.name not in ("training", "mask")
    ]
    return names or [one.name for one in parameters[:1]]


def _tried(layer: Any, stated: dict[str, Domain]) -> Iterator[Domain]:
    """Yields domains for what the user has not stated."""
    yield from stated.values()
    shape = _built_shape(layer)
    if shape is not None:
        yield Domain(shape)
    if stated:
        return
    if isinstance(layer, keras.layers.Embedding):
        yield _ids(layer.input_dim - 1)
        return
    ndim = _dimensions(layer)
    for sizes in sorted(_SHAPES, key=lambda sizes: len(sizes) != ndim):
        yield Domain(sizes)
    yield _ids(1)


def _ids(high: int) -> Domain:
    return Domain((3, 5), "ids", 0.0, float(high), whole=True)


def _dimensions(layer: Any) -> int:
    spec = getattr(layer, "input_spec", None)
    spec = spec[0] if isinstance(spec, (list, tuple)) and spec else spec
    return getattr(spec, "ndim", None) or getattr(spec, "min_ndim", None) or 2


def _built_shape(layer: Any) -> tuple[int, ...] | None:
    """The shape that a layer was built for, with 3 where none is known."""
    shapes = getattr(layer, "_build_shapes_dict", None) or {}
    shape = next(iter(shapes.values()), None)
    if isinstance(layer, keras.Model) and not shape:
        shape = getattr(layer, "input_shape", None)
    if not isinstance(shape, (tuple, list)) or not shape:
        return None
    if not all(size is None or isinstance(size, int) for size in shape):
        return None
    return tuple(size or 3 for size in shape)
