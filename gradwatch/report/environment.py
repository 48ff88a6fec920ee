"""Where and how a run was trained, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gradwatch.drawing.words import count, number
from gradwatch.records import Anatomy
from gradwatch.report.contents import Contents

__all__ = ["environment"]


def environment(contents: Contents) -> dict[str, dict[str, str]]:
    """Returns heading -> name -> text; what is not known is left out."""
    run = contents.snapshot["run"]
    anatomy = contents.anatomy
    mode = dict(anatomy.mode)
    devices, dtypes = (
        ", ".join(map(str, mode.pop(name, [])))
        for name in ("devices", "dtypes")
    )
    told: dict[str, Mapping[str, Any]] = {
        "Machine": {
            "host": run["host"],
            "devices": devices,
            **run.get("versions", {}),
        },
        "Model": _model(anatomy),
        "Optimizer": {
            name: value
            for name, value in anatomy.optimizer.items()
            if value is not False
        },
        "Training": {
            **mode,
            "computes in": dtypes,
            "resumed from": contents.snapshot.get("resumed_from", ""),
        },
        "Labels": run.get("labels", {}),
    }
    return {
        heading: {
            name: _text(value)
            for name, value in rows.items()
            if value not in ("", None)
        }
        for heading, rows in told.items()
    }


def _model(anatomy: Anatomy) -> dict[str, Any]:
    kinds = Counter(layer.kind for layer in anatomy.layers)
    weights = Counter({True: 0, False: 0})
    for variable in anatomy.variables:
        weights[variable.trainable] += math.prod(variable.shape)
    return {
        "name": anatomy.model,
        "layers": ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        "variables": count(len(anatomy.variables)),
        "trainable weights": count(weights[True]),
        "other weights": count(weights[False]),
        "loss": anatomy.loss,
    }


def _text(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
