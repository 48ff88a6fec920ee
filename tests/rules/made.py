"""Made-up runs: a few named columns, judged however they are cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Layer,
    Schema,
    Variable,
)
from gradwatch.signals import Slot
from tests.rules import synthetic

XRAYS = (10, 20, 50, 100, 200, 300, 400)


def dense(
    *kernels: tuple[str, tuple[int, ...], float],
    activation: str = "relu",
    planned: int = 300,
    **facts: Any,
) -> Anatomy:
    """Returns a model of Dense layers: path, shape and scale of each."""
    variables = [
        variable
        for path, shape, scale in kernels
        for variable in (
            Variable(f"{path}/kernel", shape, "float32", True, scale),
            Variable(f"{path}/bias", shape[-1:], "float32", True, 0.0),
        )
    ]
    layers = [Layer(path, "Dense", activation) for path, _, _ in kernels]
    return Anatomy(
        layers=tuple(layers),
        variables=tuple(variables),
        planned_steps=planned,
        **facts,
    )


def run(
    columns: Mapping[tuple[str, str], Any],
    steps: int = 300,
    first: int = 0,
) -> tuple[Schema, Block]:
    """Returns a run of some columns: (signal, subject) -> values of all steps.

    Args:
        columns: scalars, or an array with a value for each step.
        steps: how many.
        first: number of the first one.
    """
    schema = Schema(tuple(Slot(*name) for name in columns), first)
    numbers = np.arange(first, first + steps)
    values = np.stack(
        [np.broadcast_to(np.float32(v), steps) for v in columns.values()], 1
    )
    xray = np.isin(numbers, XRAYS)
    values[np.ix_(~xray, schema.xray)] = np.nan
    return schema, Block(numbers, numbers.astype(np.float64), values, xray)


def judged(
    rule: Any,
    anatomy: Anatomy,
    columns: Mapping[tuple[str, str], Any],
    steps: int = 300,
    cuts: Iterable[int] = (),
) -> list[Finding]:
    """Returns what a new rule says about a run in pieces."""
    wide = {
        Slot(*name): np.broadcast_to(np.float32(values), steps)
        for name, values in columns.items()
    }
    inside = [cut for cut in cuts if 0 < cut < steps]
    return synthetic.judged(rule, wide, XRAYS, anatomy, inside)


def learning(loss: Any = 2.3, constant: float = 2.3) -> dict[Any, Any]:
    """Columns of a loss, of what a constant would have, and of the batch."""
    return {
        ("loss", ""): loss,
        ("loss_component", "compile_loss"): loss,
        ("component_constant_loss", "compile_loss"): constant,
        ("component_lowest_loss", "compile_loss"): 0.0,
        ("examples", ""): 64.0,
        ("batch_example_std", "inputs"): 1.0,
        ("batch_std", "inputs"): 1.0,
        ("nonfinite", ""): 0.0,
        ("update_dropped", ""): 0.0,
    }


def weights(path: str, **values: Any) -> dict[Any, Any]:
    """Columns of one variable; a healthy one unless told otherwise."""
    usual = {
        "gradient_norm": 0.1,
        "gradient_max_abs": 0.01,
        "zero_gradient_ratio": 0.0,
        "weight_norm": 1.0,
        "update_norm": 1e-3,
        "unit_spread": 1.0,
    }
    return {
        (f"variable_{signal}", path): value
        for signal, value in {**usual, **values}.items()
    }


def outputs(path: str, **values: Any) -> dict[Any, Any]:
    """Columns of one layer's outputs; a healthy one unless told otherwise."""
    usual = {
        "silent_ratio": 0.1,
        "mean": 0.5,
        "std": 0.5,
        "max_abs": 2.0,
        "bound_ratio": 0.1,
    }
    return {
        (f"layer_{signal}", path): value
        for signal, value in {**usual, **values}.items()
    }
