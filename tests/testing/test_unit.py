"""The same run with a loss in another unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.records import Anatomy, Block, Epoch, Schema
from gradwatch.replay import Opened
from gradwatch.signals import Slot
from gradwatch.testing.recording import Recording
from gradwatch.testing.unit import in_unit

_SLOTS = ("loss", "gradient_norm", "learning_rate", "examples")


def _recording(optimizer: str) -> Any:
    anatomy = Anatomy(optimizer={"class_name": optimizer})
    schema = Schema(tuple(map(Slot, _SLOTS)))
    values = np.array([[2.0, 4.0, 0.1, 32.0]], np.float32)
    steps = np.zeros(1, np.int64)
    block = Block(steps, np.zeros(1), values, np.zeros(1, np.bool_))
    logs = {"loss": 2.0, "head_loss": 1.0, "accuracy": 0.5}
    epoch = Epoch(0, 1, 0.0, logs, {"loss": 3.0, "accuracy": 0.25})
    received: tuple[Any, ...] = (Opened(anatomy, schema), block, epoch)
    return Recording("made", 0, 1.0, 2.0, 1.0, "", received)


@pytest.mark.parametrize(("optimizer", "rate"), [("SGD", 1e-3), ("Adam", 0.1)])
def test_losses_and_gradients_grow(optimizer: str, rate: float) -> None:
    """Weights move as before: the rate of plain descent makes up for it."""
    before = _recording(optimizer)
    changed: Any = in_unit(before, 100.0)
    _, block, epoch = changed.received
    expected = [[200.0, 400.0, rate, 32.0]]
    np.testing.assert_allclose(block.values, expected, rtol=1e-6)
    assert epoch.metrics == {"loss": 200, "head_loss": 100, "accuracy": 0.5}
    assert epoch.validation == {"loss": 300, "accuracy": 0.25}
    assert before.received[1].values[0, 0] == 2.0
