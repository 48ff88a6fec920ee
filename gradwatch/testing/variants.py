"""A run as it might as well have been: findings should be the same.

Inputs in another unit, batches in another order, kernels in two pieces: a
training that nothing of this harms looks like these variants of its recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Block, Schema, Variable
from gradwatch.replay import Opened
from gradwatch.signals import Slot
from gradwatch.testing.recording import Recording

__all__ = ["in_other_order", "inputs_in_unit", "with_split_kernels"]

_OF_INPUTS = ("mean", "std", "min", "max", "example_std")
_WINDOW = 16
_HALF = ("gradient_norm", "weight_norm", "update_norm")
_PLAIN = (
    *("InputLayer", "Dense", "Conv1D", "Conv2D", "Flatten", "Reshape"),
    *("Dropout", "ReLU", "Softmax", "Activation", "BatchNormalization"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"),
)


def inputs_in_unit(recording: Recording, factor: float) -> Recording | None:
    """Returns the run with inputs `factor` times as large.

    The first kernel is smaller by as much, and so are its updates; its gradient
    is larger. So it is where an optimizer's steps go with the size of what they
    move. `None` where it is not clear which kernel alone meets the inputs.

    Args:
        recording: what rules got.
        factor: above 0.
    """
    opened = [r for r in recording.received if isinstance(r, Opened)][-1]
    kernels = [v.path for v in opened.anatomy.variables if len(v.shape) > 1]
    kinds = {layer.kind for layer in opened.anatomy.layers}
    if not kernels or not kinds <= {*_PLAIN}:
        return None
    grows = {Slot(f"batch_{s}", "inputs"): factor for s in _OF_INPUTS}
    for signal in ("gradient_norm", "gradient_max_abs"):
        grows[Slot(f"variable_{signal}", kernels[0])] = factor
    for signal in ("weight_norm", "update_norm"):
        grows[Slot(f"variable_{signal}", kernels[0])] = 1 / factor

    def anatomy(known: Anatomy) -> Anatomy:
        return replace(
            known,
            variables=tuple(
                replace(v, scale=v.scale / factor)
                if v.path == kernels[0]
                else v
                for v in known.variables
            ),
        )

    def change(schema: Schema, block: Block) -> Block:
        scales = [grows.get(slot, 1.0) for slot in schema.slots]
        values = block.values * np.array(scales, np.float32)
        return replace(block, values=_added_up(schema, values))

    return _changed(recording, anatomy, lambda schema: schema, change)


def _added_up(
    schema: Schema, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The gradient's norm anew, of those of the variables."""
    known = list(schema.columns("variable_gradient_norm").values())
    total = np.linalg.norm(values[:, known], axis=1)
    for signal in ("gradient_norm", "applied_gradient_norm"):
        column = schema.column(signal)
        if column is not None and known:
            old = values[:, column]
            values[:, column] = np.where(np.isfinite(total), total, old)
    return values


def in_other_order(recording: Recording, seed: int = 0) -> Recording:
    """Returns the run whose batches came in another order.

    Within each 16 steps, rows that are no X-rays change places.

    Args:
        recording: what rules got.
        seed: of the order.
    """
    random = np.random.default_rng(seed)

    def change(schema: Schema, block: Block) -> Block:
        values = block.values.copy()
        for window in np.unique(block.steps // _WINDOW):
            inside = block.steps // _WINDOW == window
            rows = np.flatnonzero(inside & ~block.xray)
            values[rows] = values[random.permutation(rows)]
        return replace(block, values=values)

    return _changed(recording, lambda a: a, lambda s: s, change)


def with_split_kernels(recording: Recording) -> Recording:
    """Returns the run with each kernel in two pieces of the same layer.

    Each is for one half of the inputs. Norms are those of a half of the
    entries; all else is as it was.
    """
    split: set[str] = set()

    def anatomy(known: Anatomy) -> Anatomy:
        found = [_pieces(variable) for variable in known.variables]
        split.update(each[0].path for each in found if len(each) > 1)
        flat = tuple(piece for each in found for piece in each)
        return replace(known, variables=flat)

    def more(schema: Schema) -> Schema:
        added = [
            slot._replace(
                subject=slot.subject.replace("kernel", "second_kernel")
            )
            for slot in schema.slots
            if slot.subject in split
        ]
        return replace(schema, slots=(*schema.slots, *added))

    def change(schema: Schema, block: Block) -> Block:
        old = schema.slots[: block.values.shape[1]]
        scales = [
            0.5**0.5
            if slot.subject in split
            and slot.signal.removeprefix("variable_") in _HALF
            else 1.0
            for slot in old
        ]
        values = block.values * np.array(scales, np.float32)
        mine = [i for i, slot in enumerate(old) if slot.subject in split]
        return replace(
            block, values=np.concatenate([values, values[:, mine]], 1)
        )

    return _changed(recording, anatomy, more, change)


def _pieces(variable: Variable) -> list[Variable]:
    """A kernel in two, anything else as it is."""
    inputs, *others = variable.shape or (0,)
    if not others or inputs < 2 or not variable.path.endswith("kernel"):
        return [variable]
    shape = (inputs // 2, *others)
    second = variable.path.replace("kernel", "second_kernel")
    return [
        replace(variable, path=path, shape=shape)
        for path in (variable.path, second)
    ]


def _changed(
    recording: Recording,
    anatomy: Callable[[Anatomy], Anatomy],
    schema: Callable[[Schema], Schema],
    block: Callable[[Schema, Block], Block],
) -> Recording:
    """Returns a run whose facts, columns and rows are others."""
    received: list[Any] = []
    columns = Schema()
    for item in recording.received:
        if isinstance(item, Opened):
            known = anatomy(item.anatomy)
            columns = schema(item.schema)
            item = Opened(known, columns)
        elif isinstance(item, Block):
            item = block(columns, item)
        received.append(item)
    return replace(recording, received=tuple(received))
