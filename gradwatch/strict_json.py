"""Strict JSON of records and other plain data.

NaN and the infinities become the strings `"NaN"`, `"Infinity"` and
`"-Infinity"`, which `float()` reads back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from gradwatch.records import Anatomy, Cut, Epoch, Layer, Schema, Variable
from gradwatch.signals import Slot

__all__ = ["dumps", "read_anatomy", "read_epoch", "read_schema"]


def dumps(value: object) -> str:
    """Returns one line of strict JSON of a record or of plain data."""
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def read_anatomy(data: Mapping[str, Any]) -> Anatomy:
    """Reads back an Anatomy; older ones have no cuts."""
    variables = (
        {**v, "shape": tuple(v["shape"]), "scale": float(v["scale"])}
        for v in data["variables"]
    )
    cuts = (
        {**cut, "variables": tuple(cut["variables"])}
        for cut in data.get("cuts", ())
    )
    facts = {
        "layers": tuple(Layer(**layer) for layer in data["layers"]),
        "variables": tuple(Variable(**v) for v in variables),
        "metrics": tuple(data["metrics"]),
        "cuts": tuple(Cut(**cut) for cut in cuts),
    }
    return Anatomy(**{**data, **facts})


def read_schema(data: Mapping[str, Any]) -> Schema:
    """Reads back a Schema."""
    slots = tuple(Slot(*slot) for slot in data["slots"])
    return Schema(slots, data["first_step"])


def read_epoch(data: Mapping[str, Any]) -> Epoch:
    """Reads back an Epoch."""
    values = {
        kind: {name: float(v) for name, v in data[kind].items()}
        for kind in ("metrics", "validation")
    }
    return Epoch(**{**data, **values})


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    return value
