"""Faulty functions, losses and layers that an audit must see through.

Each has exactly one fault, and looks like what people write. What is claimed
of each is shown by `test_planted_set.py`, without the audit.
"""

from __future__ import annotations

from tests.audit.planted_backward import BACKWARD
from tests.audit.planted_epsilon import EPSILON
from tests.audit.planted_layers import LAYERS
from tests.audit.planted_loss_backward import LOSS_BACKWARD
from tests.audit.planted_missing import MISSING
from tests.audit.planted_nonfinite import NONFINITE
from tests.audit.planted_sane import SANE
from tests.audit.records import Planted

__all__ = ["PLANTED"]

PLANTED: tuple[Planted, ...] = (
    *BACKWARD,
    *LOSS_BACKWARD,
    *MISSING,
    *NONFINITE,
    *EPSILON,
    *SANE,
    *LAYERS,
)
