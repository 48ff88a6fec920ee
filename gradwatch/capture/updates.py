"""One update of weights in a step, and the reading of all of them.

Most steps have one. A step with several optimizers, or one that applies
several times, has several; its reading is then about all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradwatch.capture.replicas import added
from gradwatch.capture.verdict import HEAD, Verdict, finite_where_it_was
from gradwatch.signals import Slot

__all__ = ["Update", "outcome", "reading", "with_state"]

_FLAGS = HEAD[2:]
_LEDGER = ("loss_component", "raw_loss_component")
_APPLIED = ("applied_gradient_norm", "clip_factor")
_OWN = ("gradient_norm", "learning_rate", *_APPLIED)


class Update(NamedTuple):
    """What was found about one update.

    Attributes:
        optimizer: its name: the model's attribute that holds it, or its own.
        slots: what `verdict.values` are.
        verdict: see there.
        got: what the optimizer got, summed over all replicas.
    """

    optimizer: str
    slots: tuple[Slot, ...]
    verdict: Verdict
    got: Sequence[Any]


def outcome(updates: Sequence[Update]) -> tuple[Any, Any]:
    """Returns whether the step may change the model, and whether it is bad."""
    first, *more = [update.verdict for update in updates]
    allowed, bad = first.allowed, first.bad
    for verdict in more:
        allowed &= verdict.allowed
        bad |= verdict.bad
    return allowed, bad


def reading(updates: Sequence[Update]) -> tuple[tuple[Slot, ...], Any]:
    """Returns the slots and values of the step's row.

    Of several updates: the loss is the sum over optimizers, each with the mean
    of its updates' losses; it is a part of the ledger under the optimizer's
    name, and its own parts stand below it. Norms are the largest of the
    updates of a variable, and the global norm is over these. Of what optimizers
    say of themselves the first is taken.

    Args:
        updates: one or more, in the order in which they were applied.

    Returns:
        The slots, and float32 `[len(slots)]`.
    """
    if len(updates) == 1:
        return updates[0].slots, updates[0].verdict.values
    each = [_named(update) for update in updates]
    found: dict[Slot, list[Any]] = {}
    for values in each:
        for slot, value in values.items():
            found.setdefault(slot, []).append(value)
    row = {Slot(signal): tf.zeros(()) for signal in HEAD}
    row |= {slot: _combined(slot, values) for slot, values in found.items()}
    tops = [Slot("loss_component", name) for name in _names(updates)]
    row[Slot("loss")] = tf.add_n([row[slot] for slot in tops])
    norms = [v for s, v in row.items() if s.signal == "variable_gradient_norm"]
    wide = tf.cast(tf.stack([0.0, *norms]), tf.float64)
    row[Slot("gradient_norm")] = tf.cast(tf.norm(wide), tf.float32)
    kept = tf.reduce_all(tf.stack([u.verdict.allowed for u in updates]))
    applied = row[Slot("update_applied")] * tf.cast(kept, tf.float32)
    row[Slot("update_applied")] = applied
    return tuple(row), tf.stack(list(row.values()))


def with_state(
    slots: tuple[Slot, ...],
    values: Any,
    state: Mapping[str, tuple[Any, Any]],
    guarded: bool,
) -> tuple[tuple[Slot, ...], Any, Any]:
    """Adds what was assigned after the last update to a reading.

    Args:
        slots: of the reading; `HEAD` first.
        values: float32 `[len(slots)]`.
        state: name of a variable -> value at the step's start, value now.
        guarded: whether a bad step changes nothing.

    Returns:
        The slots and values with one flag more for each variable, and whether
        all of them are finite where they were, bool scalar.
    """
    kept = [finite_where_it_was(*pair) for pair in state.values()]
    lost = added(tf.cast(~tf.stack(kept), tf.float32))
    flags = tf.equal(lost, 0)
    fine = tf.reduce_all(flags)
    bad = tf.cast(~fine, tf.float32)
    dropped = bad if guarded else tf.zeros(())
    head = dict(zip(HEAD, tf.unstack(values[: len(HEAD)], len(HEAD))))
    head["nonfinite"] = tf.maximum(head["nonfinite"], bad)
    head["update_applied"] *= 1.0 - dropped
    head["update_dropped"] = tf.maximum(head["update_dropped"], dropped)
    more = [Slot("variable_nonfinite", name) for name in state]
    parts = [
        tf.stack(list(head.values())),
        values[len(HEAD) :],
        tf.cast(~flags, tf.float32),
    ]
    return (*slots, *more), tf.concat(parts, 0), fine


def _names(updates: Sequence[Update]) -> list[str]:
    return list(dict.fromkeys(update.optimizer for update in updates))


def _named(update: Update) -> dict[Slot, Any]:
    """An update's values, those of the run under the optimizer's name."""
    name = update.optimizer
    values: dict[Slot, Any] = {}
    for slot, value in zip(
        update.slots,
        tf.unstack(update.verdict.values, len(update.slots)),
        strict=True,
    ):
        if slot.signal in _LEDGER:
            values[Slot(slot.signal, f"{name}/{slot.subject}")] = value
        elif slot == Slot("loss"):
            values[Slot("loss_component", name)] = value
        else:
            if slot.signal in _OWN:
                values[Slot(f"optimizer_{slot.signal}", name)] = value
            if slot.signal not in _APPLIED:
                values[slot] = value
    return values


def _combined(slot: Slot, values: list[Any]) -> Any:
    if len(values) == 1:
        return values[0]
    if slot.signal in _LEDGER:
        return tf.add_n(values) / len(values)
    if slot.signal in _FLAGS or slot.signal.endswith(("_norm", "_nonfinite")):
        together = tf.stack(values)
        finite = tf.reduce_all(tf.math.is_finite(together))
        # A maximum may pass over NaN, a sum does not.
        most, sum_ = tf.reduce_max(together), tf.reduce_sum(together)
        return tf.where(finite, most, sum_)
    if slot.signal == "optimizer_clip_factor":
        # NaN where an update only collects.
        return functools.reduce(
            lambda a, b: tf.where(tf.math.is_nan(a) | (b < a), b, a), values
        )
    return values[0]
