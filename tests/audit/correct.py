"""Correct functions, losses and layers on which an audit must be silent.

Twins of the faulty ones, and code that only looks suspicious: kinks, constants
that nothing learns from, losses that are best elsewhere than at their target.
"""

from __future__ import annotations

from tests.audit.correct_activations import ACTIVATIONS
from tests.audit.correct_layers import LAYERS
from tests.audit.correct_losses import LOSSES
from tests.audit.correct_pieces import PIECES
from tests.audit.correct_stable import STABLE
from tests.audit.records import Correct

__all__ = ["CORRECT"]

CORRECT: tuple[Correct, ...] = (
    *PIECES,
    *ACTIVATIONS,
    *STABLE,
    *LOSSES,
    *LAYERS,
)
