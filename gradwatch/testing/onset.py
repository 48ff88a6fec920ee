"""Onset: since when a run was going wrong, by its losses alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Block, Schema
from gradwatch.replay import Opened
from gradwatch.testing.recording import Recording

__all__ = ["Onset", "delays", "onset"]

_FAR = 2.0
_FIRST = 3


class Onset(NamedTuple):
    """When a run went wrong, and when it was told.

    Attributes:
        began: step at which the loss left what it had been.
        told: step of the first critical finding.
        ended: first step that was not finite, `None` if there was none.
    """

    began: int
    told: int
    ended: int | None

    @property
    def in_time(self) -> bool:
        """Whether it was told before NaN or Inf; true where none came."""
        return self.ended is None or self.told < self.ended


def onset(recording: Recording, told: int) -> Onset | None:
    """Returns since when a run's loss was far above what it had been.

    Args:
        recording: what rules got.
        told: step of the first critical finding.

    Returns:
        `began` is the first step of the last stretch of finite losses, up to
        the finding, all of which are more than twice the median of the first
        three, in magnitude; `None` where there is no such stretch.
    """
    schema = Schema()
    losses: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    for item in recording.received:
        if isinstance(item, Opened):
            schema = item.schema
        elif isinstance(item, Block) and len(item):
            losses.append(item.values[:, schema.column("loss")])
    loss = np.abs(np.concatenate(losses))
    (lost,) = np.nonzero(~np.isfinite(loss))
    ended = int(lost[0]) if len(lost) else None
    seen = loss[:ended][: told + 1]
    if len(seen) <= _FIRST:
        return None
    (near,) = np.nonzero(seen <= _FAR * np.median(seen[:_FIRST]))
    began = int(near[-1]) + 1 if len(near) else 0
    return Onset(began, told, ended) if began < len(seen) else None


def delays(found: Iterable[Onset]) -> str:
    """Says how soon runs that diverge were told, in one line."""
    known = list(found)
    steps = sorted(each.told - each.began for each in known)
    if not steps:
        return "No run diverged."
    return (
        f"Runs whose loss was growing when a critical finding was told: "
        f"{len(known)}. Told after {steps[len(steps) // 2]} steps (median; at "
        f"most {steps[-1]}), and before the first NaN or Inf in "
        f"{sum(each.in_time for each in known)}."
    )
