"""The words for what is measured: signals, and the slots that hold them.

TensorBoard tags, Prometheus names and the table in the README derive from
`SIGNALS`, whose rows are in `catalogue`; histograms are counted on
`HISTOGRAM_EDGES`. Imports numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.catalogue import CATALOGUE, Scope, Signal

__all__ = [
    "HISTOGRAM_EDGES",
    "SIGNALS",
    "Scope",
    "Signal",
    "Slot",
    "prometheus_name",
    "tag",
]


class Slot(NamedTuple):
    """One measured column, or histogram: a signal and what it was measured on.

    Attributes:
        signal: name of a `Signal`.
        subject: path of a variable, layer or component, two components as
            `a|b`, name of an optimizer, a metric or a field of the batch, or
            `""` for the run.
    """

    signal: str
    subject: str = ""


def _grid() -> NDArray[np.float32]:
    """Edges that host and device agree on: each is a float32 number."""
    magnitudes = (10.0 ** (np.arange(-40, 9) / 2)).astype(np.float32)
    edges = np.concatenate([-magnitudes[::-1], magnitudes])
    edges.setflags(write=False)
    return edges


HISTOGRAM_EDGES = _grid()
"""What histograms are counted on: float32 `[98]`, ascending.

Half decades from 1e-20 to 1e4, and their negatives. The 99 bins: bin i holds
`edges[i - 1] <= x < edges[i]`, as `np.searchsorted(edges, x, side="right")`
says. The first and the last are open; bin 49, in the middle, holds exact zeros
and magnitudes below 1e-20. NaN and the infinities are not counted.
"""


SIGNALS: Mapping[str, Signal] = {s.name: s for s in CATALOGUE}
"""All signals by name, in the order in which they are shown."""


def tag(slot: Slot) -> str:
    """Returns the TensorBoard tag of a slot: `signal` or `signal/subject`."""
    return f"{slot.signal}/{slot.subject}" if slot.subject else slot.signal


def prometheus_name(signal: str) -> str:
    """Returns the Prometheus name of a signal: prefix, name, unit suffix.

    Base units only (seconds, bytes, ratio), plural and last, as Prometheus'
    naming practices ask; signals without a unit get no suffix, and those whose
    name ends with their unit no second one.
    """
    unit = SIGNALS[signal].unit
    name = f"gradwatch_{signal}"
    unitless = unit in ("1", "flag", "steps")
    return name if unitless or name.endswith(f"_{unit}") else f"{name}_{unit}"
