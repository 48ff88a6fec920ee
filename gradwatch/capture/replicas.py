"""Replicas: a step as several copies, each with its share of the batch.

`tf.distribute.MirroredStrategy` traces a step once for each replica, in threads
of their own that take turns, into one graph. Whatever is to be the same for all
of them is summed here; where there is only one, nothing is added to its graph.

An optimizer sums gradients over replicas by `merge_call`, which TensorFlow
forbids inside of a branch that one replica takes; so all take it together. Read
in tensorflow 2.21: `python/distribute/mirrored_run.py`; in Keras 3.15.1:
`backend/tensorflow/optimizer.py` (_all_reduce_sum_gradients).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gradwatch.capture.attributes import hooked

__all__ = [
    "added",
    "apply",
    "apply_if",
    "mirrored",
    "number",
    "once",
    "own",
    "part",
    "total",
]


def number() -> int:
    """How many replicas a step has that is being traced here."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def mirrored() -> bool:
    """Whether the replicas, one or more, take turns in being traced."""
    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MirroredStrategy)


def own() -> int:
    """Which of them this thread traces."""
    if number() == 1:
        return 0
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def once(call: Callable[[], None]) -> None:
    """Calls what all replicas would do alike; each of them must call this."""
    if number() == 1:
        call()
        return
    context = tf.distribute.get_replica_context()
    context.merge_call(lambda strategy: call())


def part(variable: Any) -> Any:
    """Returns this replica's own copy of a `tf.Variable`.

    Assigning to it concerns no other replica, whatever the variable would do.
    """
    if number() == 1:
        return variable
    strategy = tf.distribute.get_strategy()
    return strategy.experimental_local_results(variable)[own()]


def added(vector: Any) -> Any:
    """Returns the sum of small vectors of all replicas.

    Each of them must call this. No collective operation: a new one for some
    numbers would cost more than copying them.

    Args:
        vector: float32, of the same length in each.
    """
    if number() == 1:
        return vector

    def add(strategy: Any, vectors: Any) -> Any:
        return tf.add_n(strategy.experimental_local_results(vectors))

    context = tf.distribute.get_replica_context()
    return context.merge_call(add, args=(vector,))


def total(tensors: Sequence[Any]) -> list[Any]:
    """Returns the sums of large tensors over all replicas.

    Each of them must call this. It is what Keras' optimizers do.

    Args:
        tensors: of the same shapes in each; `tf.IndexedSlices` as well.
    """
    if number() == 1 or not tensors:
        return list(tensors)
    context = tf.distribute.get_replica_context()
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
    return list(sums)


def apply(
    call: Callable[[Any], Any],
    optimizer: Any,
    gradients: Sequence[Any],
    sums: Sequence[Any],
) -> Any:
    """Returns `call(gradients)`, in which the optimizer sums nothing again.

    A single replica has nothing to sum. TensorFlow's `all_reduce` would keep
    the graph for as long as the process lives: it registers a gradient of its
    own, a closure over the tensors (`python/distribute/distribute_lib.py`).

    Args:
        call: has the optimizer apply gradients.
        optimizer: the one that changes the weights.
        gradients: this replica's; `None` where there is none.
        sums: those over all replicas.
    """
    alone = number() == 1
    known = {id(g): s for g, s in zip(gradients, sums, strict=True)}

    def reduced(original: Any, pairs: Any) -> Any:
        pairs = list(pairs)
        if alone:
            return pairs
        if all(id(gradient) in known for gradient, _ in pairs):
            return [(known[id(g)], variable) for g, variable in pairs]
        return original(pairs)  # clipped, say

    with hooked([(optimizer, "_all_reduce_sum_gradients", reduced)]):
        return call(gradients)


def apply_if(
    allowed: Any,
    call: Callable[[Any], Any],
    optimizer: Any,
    gradients: Sequence[Any],
    sums: Sequence[Any],
) -> None:
    """Does what `apply` does if `allowed`, a bool scalar, the same for all."""

    def one(gradients: Any, sums: Any) -> None:
        apply(call, optimizer, gradients, sums)

    if not mirrored():
        tf.cond(allowed, lambda: one(gradients, sums), lambda: None)
        return

    def together(strategy: Any, allowed: Any, *args: Any) -> None:
        def each() -> None:
            strategy.extended.call_for_each_replica(one, args=args)

        first = strategy.experimental_local_results(allowed)[0]
        tf.cond(first, each, lambda: None)

    context = tf.distribute.get_replica_context()
    context.merge_call(together, args=(allowed, list(gradients), list(sums)))
