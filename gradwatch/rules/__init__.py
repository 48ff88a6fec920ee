"""Judgement: deterministic machines over records. numpy only."""

from __future__ import annotations

from gradwatch.interfaces import Rule
from gradwatch.rules.depth import VanishingGradient
from gradwatch.rules.gradients import MissingGradient
from gradwatch.rules.initial import BadInitialisation
from gradwatch.rules.liveness import LostReadings, NoReadings
from gradwatch.rules.nonfinite import (
    NonfiniteGradient,
    NonfiniteLoss,
    NonfiniteWeight,
)
from gradwatch.rules.saturation import SaturatedUnits
from gradwatch.rules.symmetry import SymmetricWeights
from gradwatch.rules.units import DeadUnits
from gradwatch.rules.updates import ClippingAlways, SkippedUpdates
from gradwatch.rules.zeros import ZeroGradient

__all__ = ["default_rules"]


def default_rules() -> list[Rule]:
    """Returns new instances of all rules, in the order of the catalogue."""
    return [
        NonfiniteLoss(),
        NonfiniteGradient(),
        NonfiniteWeight(),
        MissingGradient(),
        ZeroGradient(),
        VanishingGradient(),
        DeadUnits(),
        SaturatedUnits(),
        SymmetricWeights(),
        BadInitialisation(),
        SkippedUpdates(),
        ClippingAlways(),
        NoReadings(),
        LostReadings(),
    ]
