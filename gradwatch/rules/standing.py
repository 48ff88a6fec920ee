"""Standing: what is known of a run's progress at one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradwatch.rules.trends import falls, most_fall, slope

__all__ = ["MISSCALED", "SCALE_FIRST", "Standing"]

MISSCALED = ("unscaled_input", "unscaled_target", "initialisation")
"""Causes of a run that began `far_off`."""

SCALE_FIRST = (
    "Scale inputs and targets to about 1, or the initial weights down, so that "
    "the loss begins near that of a constant answer; a higher rate does not "
    "help before."
)
"""Advice for it."""

_FAR = 1e3
_ORDERED = 10.0
_LOST = 3.0
_WINDOWS = 4
_SMALL = 1e-30


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a run's progress after a window of 16 steps.

    Attributes:
        step: last step of the window.
        seen: steps so far.
        plan: steps after which the whole plan counts as over.
        first: loss before anything was learned: the mean of the first two, or
            the median of the first window if this is higher.
        now: median of the last quarter of the run, two windows at least.
        newest: median of the last window.
        then: median of the windows of the X-rays that `spread` is of, the lower
            one; NaN if there was none.
        constant: loss of the best constant answer; NaN if not known.
        highest: its upper bound, at 99.5 %, by how X-rays differ; NaN if it is
            not known, Inf if they are too few.
        lowest: the lowest loss that the targets allow; NaN if not known.
        paired: share of the way that X-rays of the second half show, each
            against the constant of its own batch, their median; NaN if that is
            not known.
        least: the smallest of them.
        odds: log of how much likelier they are if what predictions say is true
            than if they know nothing, see `ignorant`; NaN if that is not known,
            and where one is half of the way: then there is much to be known.
        course: medians of the run so far, equally spaced.
        spacing: steps from one of them to the next.
        spread: how much predictions depend on the example, 1 = as targets do;
            NaN if not known.
        began: the same at the first X-ray.
        inputs: standard deviation of the inputs over the examples.
        ordered: how much more targets differ between batches than by chance,
            see `between_batches`; NaN if that is not known.
        copies: whether targets are the inputs.
    """

    step: int
    seen: int
    plan: int
    first: float
    now: float
    newest: float
    then: float
    constant: float
    highest: float
    lowest: float
    paired: float
    least: float
    odds: float
    course: NDArray[np.float64]
    spacing: int
    spread: float
    began: float
    inputs: float
    ordered: float
    copies: bool

    @property
    def later(self) -> NDArray[np.float64]:
        """The second half of `course`."""
        return self.course[len(self.course) // 2 :]

    @property
    def gain(self) -> float:
        """Share of the way from knowing nothing to the best that is done."""
        return self.gain_at(self.now)

    def gain_at(self, loss: float) -> float:
        """`gain` if the loss were `loss`.

        Knowing nothing is the constant answer or, if its loss is not known, the
        first loss; then the best is 0.
        """
        if math.isnan(self.constant):
            return (self.first - loss) / max(abs(self.first), _SMALL)
        return (self.constant - loss) / max(self.constant - self.lowest, _SMALL)

    @property
    def fallen(self) -> float:
        """By what share the loss has fallen since X-rays saw predictions."""
        now = min(self.now, self.newest)
        return (self.then - now) / max(abs(self.then), _SMALL)

    @property
    def far_off(self) -> bool:
        """Whether the first loss was a thousand times that of a constant.

        Then the scale of data or weights is what keeps steps small: gradients
        of squares go with the root of the loss, and Adam's mean of their
        squares takes a thousandth of each (beta_2 = 0.999, Kingma and Ba 2015),
        so that the first one outweighs those of a loss a thousand times lower.
        """
        return self.constant > 0 and self.first > _FAR * self.constant

    def began_far_off(self) -> str:
        """Says so, where it is so."""
        if not self.far_off:
            return ""
        return (
            f" The loss began at {self.first:.3g}, where a constant answer has "
            f"{self.constant:.3g}: the scale of inputs, targets or initial "
            "weights is far off."
        )

    def in_order(self) -> str:
        """Says so, where batches were not shuffled: F is 10 or more."""
        if not self.ordered > _ORDERED:
            return ""
        return (
            " Batches are not shuffled: the targets' mean varies from one to "
            f"the next {min(self.ordered, 1e6):.3g} times as much as by chance "
            "(variances), so that each undoes what the one before has taught."
        )

    def ignorant(self) -> bool:
        """Whether predictions know less than they say, by odds of 100 to 1.

        Of squared errors, predictions that vary by s times what targets do and
        correlate with them by r gain the share 2 r s - s^2, and of an entropy
        as much in twice its unit, to second order: s^2 where what they say is
        all true (r = s), -s^2 where it is all chance (r = 0), give or take
        2 s / sqrt(n) by n examples. So a gain g is exp(n g / 2) times as likely
        in the first case, whatever s is. If it is the case, that this is ever
        below 1 / 100, however often one looks, has a chance of 1 / 100 at most
        (Ville 1939); a little more, as only the newest X-rays count.
        """
        return self.odds < -math.log(100)

    def has_fallen(self) -> bool:
        """Whether the loss is below the first by more than noise.

        That of a median of 16 steps is 1.25 / 4 of a step's, that of the first
        two losses' mean 0.7 of it.
        """
        noise = float(np.median(np.abs(np.diff(self.later)))) / 0.954
        return self.first - self.now > 1.64 * 2.4 * noise

    def lost(self) -> bool:
        """Whether `later` rises, far above any answer that knows nothing."""
        most = max(self.first, self.constant)
        if not self.constant > 0 or len(self.later) < _WINDOWS:
            return False
        return bool(min(self.later) > _LOST * most) and falls(-self.later)

    def falling(self) -> bool:
        """Whether `later` falls, see `falls`."""
        return falls(self.later)

    def slope(self) -> float:
        """Fall per step in the second half, see `trends.slope`."""
        return slope(self.later) / self.spacing

    def reach(self) -> float:
        """The `gain` that may still be there when the plan is over.

        At the fastest pace that the noise of `later` leaves possible
        (`most_fall`), for as many steps as are left, at least a third of those
        so far; where it rises (Kendall's test, 5 %), it does not fall.
        """
        rest = max(self.plan - self.seen, self.seen / 3)
        rises = falls(-self.later) and len(self.later) >= _WINDOWS
        pace = 0.0 if rises else max(most_fall(self.later), 0.0)
        fall = pace / self.spacing * rest
        return self.gain_at(min(self.now, self.newest) - fall)
