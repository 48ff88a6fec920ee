"""Judgement: deterministic machines over records. numpy only."""

from __future__ import annotations

from gradwatch.interfaces import Rule
from gradwatch.rules.divergence import (
    DivergingLoss,
    ExplodingGradient,
    NegativeLoss,
)
from gradwatch.rules.frozen import FrozenVariable
from gradwatch.rules.gradients import MissingGradient
from gradwatch.rules.liveness import LostReadings, NoReadings
from gradwatch.rules.movement import UpdateTooLarge, UpdateTooSmall
from gradwatch.rules.nonfinite import (
    NonfiniteBatch,
    NonfiniteGradient,
    NonfiniteLoss,
    NonfiniteWeight,
)
from gradwatch.rules.spikes import GradientSpike, LossSpike
from gradwatch.rules.stalls import (
    ConstantOutput,
    LossFloor,
    SlowLoss,
    StalledLoss,
)
from gradwatch.rules.updates import ClippingAlways, SkippedUpdates

__all__ = ["default_rules"]


def default_rules() -> list[Rule]:
    """Returns new instances of all rules, in the order of the catalogue."""
    return [
        NonfiniteBatch(),
        NonfiniteLoss(),
        NonfiniteGradient(),
        NonfiniteWeight(),
        MissingGradient(),
        ExplodingGradient(),
        GradientSpike(),
        UpdateTooLarge(),
        UpdateTooSmall(),
        FrozenVariable(),
        SkippedUpdates(),
        ClippingAlways(),
        StalledLoss(),
        SlowLoss(),
        DivergingLoss(),
        LossSpike(),
        LossFloor(),
        NegativeLoss(),
        ConstantOutput(),
        NoReadings(),
        LostReadings(),
    ]
