"""Judgement: deterministic machines over records. numpy only."""

from __future__ import annotations

from gradwatch.interfaces import Rule
from gradwatch.rules.components import (
    ConflictingComponents,
    DominantComponent,
)
from gradwatch.rules.constants import ConstantTarget
from gradwatch.rules.gradients import MissingGradient
from gradwatch.rules.liveness import LostReadings, NoReadings
from gradwatch.rules.nonfinite import (
    NonfiniteGradient,
    NonfiniteLoss,
    NonfiniteWeight,
)
from gradwatch.rules.outputs import OutputMismatch
from gradwatch.rules.scales import UnscaledInput, UnscaledTarget
from gradwatch.rules.targets import TargetMismatch
from gradwatch.rules.updates import ClippingAlways, SkippedUpdates
from gradwatch.rules.validation import Overfitting

__all__ = ["default_rules"]


def default_rules() -> list[Rule]:
    """Returns new instances of all rules, in the order of the catalogue."""
    return [
        NonfiniteLoss(),
        NonfiniteGradient(),
        NonfiniteWeight(),
        MissingGradient(),
        SkippedUpdates(),
        ClippingAlways(),
        DominantComponent(),
        ConflictingComponents(),
        Overfitting(),
        OutputMismatch(),
        TargetMismatch(),
        ConstantTarget(),
        UnscaledInput(),
        UnscaledTarget(),
        NoReadings(),
        LostReadings(),
    ]
