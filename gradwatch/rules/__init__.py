"""Judgement: deterministic machines over records. numpy only."""

from __future__ import annotations

from gradwatch.interfaces import Rule
from gradwatch.rules.components import (
    ConflictingComponents,
    DominantComponent,
)
from gradwatch.rules.constants import ConstantTarget
from gradwatch.rules.depth import VanishingGradient
from gradwatch.rules.divergence import (
    DivergingLoss,
    ExplodingGradient,
)
from gradwatch.rules.floors import LossFloor
from gradwatch.rules.frozen import FrozenVariable
from gradwatch.rules.gradients import MissingGradient
from gradwatch.rules.headroom import Headroom
from gradwatch.rules.initial import BadInitialisation
from gradwatch.rules.liveness import LostReadings, NoReadings
from gradwatch.rules.movement import Moves, UpdateTooLarge
from gradwatch.rules.negative import NegativeLoss
from gradwatch.rules.nonfinite import (
    NonfiniteBatch,
    NonfiniteGradient,
    NonfiniteLoss,
    NonfiniteWeight,
)
from gradwatch.rules.outputs import OutputMismatch
from gradwatch.rules.progress import Progress
from gradwatch.rules.reach import UpdateTooSmall
from gradwatch.rules.rollbacks import RolledBack
from gradwatch.rules.saturation import SaturatedUnits
from gradwatch.rules.scales import UnscaledInput, UnscaledTarget
from gradwatch.rules.skips import TooManySkips
from gradwatch.rules.spikes import GradientSpike, LossSpike
from gradwatch.rules.stalls import (
    ConstantOutput,
    SlowLoss,
    StalledLoss,
)
from gradwatch.rules.swings import OscillatingLoss
from gradwatch.rules.symmetry import SymmetricWeights
from gradwatch.rules.targets import TargetMismatch
from gradwatch.rules.units import DeadUnits
from gradwatch.rules.updates import ClippingAlways, SkippedUpdates
from gradwatch.rules.validation import Overfitting
from gradwatch.rules.zeros import ZeroGradient

__all__ = ["default_rules"]


def default_rules() -> list[Rule]:
    """Returns new instances of all rules, in the order of the catalogue."""
    progress, headroom = Progress(), Headroom()
    moves = Moves(progress)
    return [
        NonfiniteBatch(),
        NonfiniteLoss(),
        NonfiniteGradient(),
        NonfiniteWeight(),
        TooManySkips(),
        RolledBack(),
        MissingGradient(),
        ZeroGradient(headroom),
        VanishingGradient(headroom),
        ExplodingGradient(),
        GradientSpike(),
        DeadUnits(headroom),
        SaturatedUnits(headroom),
        SymmetricWeights(),
        BadInitialisation(headroom),
        UpdateTooLarge(moves),
        UpdateTooSmall(moves),
        FrozenVariable(),
        SkippedUpdates(),
        ClippingAlways(),
        *_on_losses(progress),
        OutputMismatch(),
        TargetMismatch(),
        ConstantTarget(),
        ConstantOutput(progress),
        UnscaledInput(),
        UnscaledTarget(),
        NoReadings(),
        LostReadings(),
    ]


def _on_losses(progress: Progress) -> list[Rule]:
    """Returns those on the loss and its parts."""
    return [
        StalledLoss(progress),
        SlowLoss(progress),
        DivergingLoss(progress),
        OscillatingLoss(progress),
        LossSpike(),
        LossFloor(progress),
        NegativeLoss(progress),
        DominantComponent(),
        ConflictingComponents(),
        Overfitting(),
    ]
