"""The box: the batch of a bad step, kept on the device until it is taken.

It is filled in the rare branch of a bad step; a healthy step copies and
allocates nothing. In graph mode the batch may have any shape. XLA compiles
variables of a static shape only: there it is that of a whole batch, and shorter
ones are filled up with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradwatch.capture import replicas
from gradwatch.capture.variables import own_variable
from gradwatch.facts import BOX_BYTES

__all__ = ["Box", "Kept"]

_EMPTY = -1


class Kept(NamedTuple):
    """The batch of a step, on the host.

    Attributes:
        nest: its structure as plain data, see `blackbox`; `None` = no batch.
        arrays: its tensors, in the order in which the nest numbers them; `None`
            where one could not be kept.
        notes: what is missing, and why.
    """

    nest: Any
    arrays: tuple[Any, ...]
    notes: tuple[str, ...]


class _Share:
    """Where the tensors of one replica's batch go, all of one signature."""

    def __init__(self, nest: Any, dtypes: list[Any], places: list[Any]) -> None:
        self.nest = nest
        self.dtypes = dtypes
        self.places = places
        self.step = own_variable(np.int64(_EMPTY), "box_step")
        self.rows = own_variable(np.zeros(len(places), np.int64), "box_rows")


class Box:
    """Room for one batch of each replica.

    Args:
        compiled: whether XLA compiles the step.

    Attributes:
        rows: examples of a whole batch, `None` if that is not known.
        replicas: how many shares a batch has.
    """

    def __init__(self, compiled: bool) -> None:
        self.rows: int | None = None
        self.replicas = 1
        self._compiled = compiled
        self._shares: dict[Any, _Share] = {}

    def keep_if(self, wanted: Any, replica: int, batch: Any, step: Any) -> None:
        """In the graph: keeps a batch.

        Args:
            wanted: bool scalar, whether to.
            replica: whose share of the batch it is.
            batch: any nest of tensors.
            step: int64 scalar, its number.
        """
        self.replicas = replicas.number()
        leaves: list[Any] = []
        nest = _nest(batch, leaves)
        shapes = [self._shape(leaf) for leaf in leaves]
        kinds = ((leaf.dtype, str(s)) for leaf, s in zip(leaves, shapes))
        key = replica, repr(nest), *kinds
        if key not in self._shares:
            places = [
                None if shape is None else _place(leaf.dtype, shape)
                for leaf, shape in zip(leaves, shapes, strict=True)
            ]
            dtypes = [leaf.dtype for leaf in leaves]
            self._shares[key] = _Share(nest, dtypes, places)
        share = self._shares[key]

        def keep() -> None:
            for place, leaf in zip(share.places, leaves, strict=True):
                if place is not None:
                    filled = _filled(leaf, place.shape)
                    place.assign(tf.cast(filled, place.dtype))
            if self._compiled:
                share.rows.assign(list(map(_length, leaves)))
            share.step.assign(step)

        tf.cond(wanted, keep, lambda: None)

    def take(self, step: int) -> Kept:
        """On the host: returns the batch of `step`, of all replicas."""
        shares = {
            replica: share
            for (replica, *_), share in self._shares.items()
            if int(share.step.numpy()) == step
        }
        if not shares:
            why = "The batch of this step was not kept."
            return Kept(None, (), (why,))
        arrays: list[Any] = []
        notes: list[str] = []
        nests: list[Any] = []
        for replica in range(self.replicas):
            if replica not in shares:
                nests.append(None)
                why = f"The share of replica {replica} was not kept."
                notes.append(why)
                continue
            nests.append(_moved(shares[replica].nest, len(arrays)))
            arrays += self._read(shares[replica], notes)
        nest = nests[0] if self.replicas == 1 else {"replicas": nests}
        return Kept(nest, tuple(arrays), tuple(notes))

    def clear(self) -> None:
        """On the host: makes room for the batch of another step."""
        for share in self._shares.values():
            share.step.assign(_EMPTY)
            for place in share.places:
                if place is not None and place.shape.rank is None:
                    place.assign(tf.zeros([0], place.dtype))

    def _read(self, share: _Share, notes: list[str]) -> Iterator[Any]:
        lengths = share.rows.numpy().tolist()
        for place, dtype, rows in zip(share.places, share.dtypes, lengths):
            if place is None:
                notes.append(
                    "A tensor of the batch was not kept: under XLA that needs "
                    "batches of a static shape below 512 MB."
                )
                yield None
                continue
            array = place.numpy().astype(dtype.as_numpy_dtype, copy=False)
            if self._compiled and array.ndim:
                if rows > len(array):
                    notes.append(f"Of {rows} examples {len(array)} were kept.")
                array = array[:rows]
            yield array

    def _shape(self, leaf: Any) -> Any:
        """The shape in which a tensor is kept, `None` if it cannot be."""
        if not self._compiled:
            return tf.TensorShape(None)
        shape = leaf.shape
        if shape.rank and shape[0] is None and self.rows:
            shape = tf.TensorShape([self.rows, *shape[1:]])
        if not shape.is_fully_defined():
            return None
        size = math.prod(shape.as_list()) * leaf.dtype.size
        return shape if size <= BOX_BYTES else None


def _place(dtype: Any, shape: Any) -> Any:
    if shape.rank is None:
        # Beside the step on a GPU: a batch comes from the host.
        with tf.init_scope(), tf.device("CPU:0"):
            return own_variable(lambda: tf.zeros([0], dtype), "box", shape)
    # TensorFlow keeps int32 of a GPU on the host, out of XLA's reach.
    dtype = tf.int64 if dtype == tf.int32 else dtype
    return own_variable(lambda: tf.zeros(shape, dtype), "box")


def _length(leaf: Any) -> Any:
    """Entries of the first axis, int64 scalar; 0 of a scalar."""
    shape = tf.shape(leaf, tf.int64)
    return shape[0] if leaf.shape.rank else tf.zeros((), tf.int64)


def _filled(leaf: Any, shape: Any) -> Any:
    """A tensor with as many rows as `shape` says."""
    if shape.rank is None or leaf.shape == shape:
        return leaf
    cut = leaf[: shape[0]]
    missing = shape[0] - tf.shape(cut)[0]
    before_after = [[0, missing], *[[0, 0]] * (shape.rank - 1)]
    return tf.pad(cut, before_after)


def _nest(part: Any, leaves: list[Any]) -> Any:
    """The structure of a batch as plain data; `leaves` takes its tensors."""
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {"dict": {str(k): _nest(v, leaves) for k, v in part.items()}}
    if isinstance(part, tuple | list):
        kind = "list" if isinstance(part, list) else "tuple"
        return {kind: [_nest(v, leaves) for v in part]}
    flat = tf.nest.flatten(part, expand_composites=True)
    first = len(leaves)
    leaves += map(tf.convert_to_tensor, flat)
    places = [{"leaf": i} for i in range(first, len(leaves))]
    if tf.is_tensor(part) and not isinstance(part, tf.Tensor):
        return {type(part).__name__: places}
    return places[0]


def _moved(nest: Any, by: int) -> Any:
    """The same nest, its tensors numbered from `by` on."""
    if isinstance(nest, Mapping):
        if "leaf" in nest:
            return {"leaf": nest["leaf"] + by}
        return {key: _moved(value, by) for key, value in nest.items()}
    if isinstance(nest, list):
        return [_moved(value, by) for value in nest]
    return nest
