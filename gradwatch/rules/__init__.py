"""Judgement: deterministic machines over records. numpy only."""

from __future__ import annotations

from gradwatch.interfaces import Rule
from gradwatch.rules.gradients import MissingGradient
from gradwatch.rules.liveness import LostReadings, NoReadings
from gradwatch.rules.nonfinite import (
    NonfiniteGradient,
    NonfiniteLoss,
    NonfiniteWeight,
)
from gradwatch.rules.updates import ClippingAlways, SkippedUpdates

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
        NoReadings(),
        LostReadings(),
    ]
