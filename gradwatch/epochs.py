"""What Keras says at the end of an epoch, as a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gradwatch.records import Epoch

__all__ = ["epoch_record"]


def epoch_record(
    epoch: int, step: int, time: float, logs: Mapping[str, Any]
) -> Epoch:
    """Returns the Epoch of Keras' logs.

    Args:
        epoch: 0-based.
        step: training batches finished so far.
        time: Unix seconds.
        logs: numbers or arrays by name; those of the validation begin with
            `val_`. An array is kept entry by entry, with `/0`, `/1` behind.
    """
    values = dict(_scalars(logs))
    validation = {
        name.removeprefix("val_"): value
        for name, value in values.items()
        if name.startswith("val_")
    }
    metrics = {k: v for k, v in values.items() if not k.startswith("val_")}
    return Epoch(epoch, step, time, metrics, validation)


def _scalars(logs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in logs.items():
        numbers = np.asarray(value, np.float64)
        if numbers.ndim == 0:
            yield name, float(numbers)
        else:
            for i, number in enumerate(numbers.ravel()):
                yield f"{name}/{i}", float(number)
