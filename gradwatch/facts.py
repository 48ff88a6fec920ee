"""Frozen facts about a model: all that a Rule knows about it.

Plain data; the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "BOX_BYTES",
    "QUIET_STEPS",
    "SKIPS_IN_ALL",
    "Anatomy",
    "Cut",
    "CutKind",
    "Layer",
    "Variable",
]

BOX_BYTES = 512 * 2**20
"""Bytes of arrays that one black box may hold."""

QUIET_STEPS = 64
"""Finite steps in a row that end an incident: the next bad step is news."""

SKIPS_IN_ALL = 10
"""Times as many bad steps as in a row are skipped in all."""

CutKind = Literal[
    "argmax",
    "assigned",
    "cast",
    "comparison",
    "not_differentiable",
    "numpy_function",
    "round",
    "stop_gradient",
    "unapplied",
    "unasked",
    "unrecorded",
    "unused",
]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the model.

    Attributes:
        path: Keras' path (`dense/kernel`).
        shape: its static shape.
        dtype: its dtype's name.
        trainable: whether the optimizer may change it.
        scale: root mean square of its entries at install; NaN when unknown.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    scale: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the model, in the order in which Keras lists them.

    Attributes:
        path: Keras' path of the layer.
        kind: its class's name.
        activation: name of its activation, `""` where it has none.
    """

    path: str
    kind: str
    activation: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Why variables get no gradient: where the way to the loss is cut.

    Attributes:
        kind: `unused` = no value computed from them reaches the loss,
            `unrecorded` = it does, but outside of the tape, `unasked` = the
            step takes no gradient of them, `unapplied` = it does, and hands it
            to no optimizer, `assigned` = it assigns them itself; otherwise what
            sort of operation without a derivative cuts, `not_differentiable`
            being any other.
        variables: names of the trainable variables.
        operation: the operation's type in TensorFlow, `""` if none cuts.
        layer: path of the layer that it is made in, `""` outside of any.
        file: of the user's line that makes it (of variables that are not cut:
            that uses them first), `""` where there is no such line.
        line: its number, counted from 1; 0 if there is none.
        function: name of the function that it is in.
        code: its text.
        zero: whether they get a gradient, which is zero for any numbers.
    """

    kind: CutKind
    variables: tuple[str, ...]
    operation: str = ""
    layer: str = ""
    file: str = ""
    line: int = 0
    function: str = ""
    code: str = ""
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Frozen facts about the model: all that a Rule knows about it.

    Attributes:
        model: the model's name.
        layers: in call order as far as Keras tells it.
        variables: all variables, trainable or not.
        loss: configuration of the compiled loss (plain data).
        metrics: names of the compiled metrics.
        optimizer: the optimizer's configuration, `class_name` among it.
        planned_steps: training batches planned in this fit; 0 = unknown.
        mode: how the step runs (`jit_compile`, `run_eagerly`,
            `steps_per_execution`, on which `devices`, in which `dtypes`).
        resumed_from: id of the run that this one goes on from, `""` if none.
        cuts: why trainable variables have no gradient, or one that is always
            zero, as far as the first trace tells. A variable is in one of them
            at most.
        max_skips: bad steps in a row that are skipped; with one more, or with
            `SKIPS_IN_ALL` times as many in all, the guard stops the run. 0
            where it stops at the first one, or never.
        max_rollbacks: how often the run goes back at a bad step; 0 = never.
        rollback_factor: what learning rates are multiplied by then.
    """

    model: str = ""
    layers: tuple[Layer, ...] = ()
    variables: tuple[Variable, ...] = ()
    loss: Any = None
    metrics: tuple[str, ...] = ()
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    planned_steps: int = 0
    mode: Mapping[str, Any] = field(default_factory=dict)
    resumed_from: str = ""
    cuts: tuple[Cut, ...] = ()
    max_skips: int = 0
    max_rollbacks: int = 0
    rollback_factor: float = 1.0
