"""Since when a run was going wrong, and how soon that was told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.records import Anatomy, Block, Schema
from gradwatch.replay import Opened
from gradwatch.signals import Slot
from gradwatch.testing.onset import Onset, delays, onset
from gradwatch.testing.recording import Recording


def _recording(losses: list[float]) -> Recording:
    schema = Schema((Slot("examples"), Slot("loss")))
    n = len(losses)
    values = np.array([[32.0] * n, losses], np.float32).T
    steps, ended = np.arange(n), np.arange(n, dtype=float)
    received: list[Any] = [Opened(Anatomy(), schema)] if n else []
    for k in range(0, n, 4):
        part = slice(k, k + 4)
        xray = np.zeros(len(steps[part]), np.bool_)
        block = Block(steps[part], ended[part], values[part], xray, {})
        received.append(block)
    return Recording("made", 0, 0.0, 0.0, 0.0, "", tuple(received))


@pytest.mark.parametrize(
    ("losses", "told", "expected"),
    [
        ([1, 1, 1, 3, 9, 27, 81], 5, Onset(3, 5, None)),
        ([-1, -1, -1, -3, -9, -27], 4, Onset(3, 4, None)),
        ([1, 1, 1, 9, 1, 3, 9, 27], 7, Onset(5, 7, None)),
        ([1, 1, 1, 3, 9, np.inf, np.nan], 4, Onset(3, 4, 5)),
        ([1, 1, 1, 3, 9, np.inf, np.nan], 6, Onset(3, 6, 5)),
        ([1, 1, 1, 1, 1, np.nan], 5, None),
        ([1, 1, 1, 9, 9, 1, 1], 6, None),
        ([1, np.nan], 1, None),
        ([], 0, None),
    ],
)
def test_where_a_loss_leaves_what_it_was(
    losses: list[float], told: int, expected: Onset | None
) -> None:
    """The last stretch above twice the first ones, up to NaN or finding."""
    assert onset(_recording(losses), told) == expected


def test_how_soon() -> None:
    """Median, longest, and how many before the first NaN."""
    found = [Onset(3, 5, None), Onset(0, 20, 30), Onset(2, 9, 8)]
    said = delays(found)
    assert "3. Told after 7 steps (median; at most 20)" in said
    assert said.endswith("NaN or Inf in 2.")
    assert delays([]) == "No run diverged."
