"""Losses, judged a second time: in PromQL, on raw metrics.

So thresholds can be changed in one place for all runs. A single loss is too
noisy for that; these look at the mean of the last 256 steps.
"""

from __future__ import annotations

from gradwatch.monitoring.alert import RUN, finite, going, greatest
from gradwatch.monitoring.thresholds import Settings, duration

__all__ = [
    "ERROR",
    "FALL",
    "GAIN",
    "diverging",
    "recordings",
    "stalled",
]

FALL = "run:gradwatch_loss_window_mean:fall30m"
ERROR = "run:gradwatch_loss_window_mean:fall_error30m"
GAIN = "run:gradwatch_loss:gain_ratio"

_UNKNOWN_PLAN, _LONGEST = 5000, 10_000  # steps, as in `rules.progress`
_BATCH = 16  # examples whose best constant answer says something
_LEAST = 128  # steps that say something about a mean


def recordings(s: Settings) -> dict[str, str]:
    """Returns name -> expression of what is recorded of each run's loss.

    `FALL`: by how much the mean of the second half of a window is lower than
    that of its first half. `ERROR`: the standard error of that, the spread of
    single losses times sqrt(2 / steps of a half). `GAIN`: see `_gain`.
    """
    half = s.value("stalled_loss_seconds") / 2
    over = duration(half)
    mean = finite(s.series("loss_window_mean", split="train"))
    noise = finite(s.series("loss_window_noise", split="train"))
    window = f"{over}:{duration(max(half / 30, 1))}"
    later = greatest(f"avg_over_time({mean}[{window}])")
    earlier = greatest(f"avg_over_time({mean}[{window}] offset {over})")
    spread = greatest(f"avg_over_time({noise}[{window}])")
    taken = greatest(f"increase({s.series('steps_total')}[{over}])")
    return {
        FALL: f"{earlier}\n- {later}",
        ERROR: f"{spread}\n* sqrt(2 / ({taken} >= {_LEAST}))",
        GAIN: _gain(s, later, window),
    }


def _gain(s: Settings, later: str, window: str) -> str:
    """Returns the share of its way down that a loss has gone.

    From the best constant answer to the lowest loss of these targets, over the
    parts of the loss where both are known; else from the first loss to 0. The
    best constant is fitted to the batch, so its loss there is too low, of n
    examples by 1/n; batches below 16 say nothing (as in `rules.progress`).
    """
    constant = finite(s.series("component_constant_loss"))
    lowest = finite(s.series("component_lowest_loss"))
    part = finite(s.series("loss_component"))
    known = f"and on ({RUN}, component) {constant} and on ({RUN}, component)"
    known = f"{known} {lowest}"
    batch = greatest(f"max_over_time({s.series('examples')}[{window}])")
    fitted = f"(1 + 1 / ({batch} >= {_BATCH}))"
    high = f"sum by ({RUN}) ({constant} {known}) * {fitted}"
    low = f"sum by ({RUN}) ({lowest} {known})"
    now = f"sum by ({RUN}) (avg_over_time({part}[{window}]) {known})"
    first = greatest(s.series("loss_window_first", split="train"))
    return f"""\
({high}
  - {now})
/ ({high}
   - {low} > 0)
or
(
  ({first}
    - {later})
  / abs({first})
  unless
  {high}
)"""


def stalled(s: Settings) -> str:
    """Returns an expression for runs whose loss does not fall.

    Definition: most of the plan is over; the loss has not fallen by some
    standard errors within a window; and it has not gone 5 % of its way down.
    As the rule `stalled_loss`, which counts in steps: silent with several
    optimizers, where a finding explains it, and where the loss diverges.
    """
    seen = greatest(s.series("step_duration_seconds_count"))
    planned = s.series("planned_steps")
    planned = f"{planned} > 0 or {planned} + {_UNKNOWN_PLAN}"
    plan = greatest(f"clamp_max({planned}, {_LONGEST})")
    explained = s.series(
        "finding_last_timestamp_seconds",
        severity="=~warning|critical",
        rule="!~stalled_loss|nonfinite_.*|.*_readings|too_many_skips"
        "|rolled_back",
    )
    fall, error, gain = (f"{n}{{{s.matchers()}}}" for n in (FALL, ERROR, GAIN))
    return f"""\
{fall} <= {s.number("stalled_loss_errors")} * {error}
and {gain} < {s.number("stalled_loss_gain")}
and {seen}
  >= {s.number("stalled_loss_plan")} * {plan}
unless on ({RUN}) {explained}
unless on ({RUN}) {s.series("optimizer_gradient_norm")}
unless
(
{diverging(s)}
)
{going(s)}"""


def diverging(s: Settings) -> str:
    """Returns an expression for runs whose loss rises for good.

    Definition: the mean loss has been, for a sixth of a window, above three
    times the first loss, and is not on its slow way up: above three times the
    highest mean of the window before the last one, where there was one. Silent
    with several optimizers.
    """
    window = s.value("diverging_seconds")
    factor = s.number("diverging_factor")
    mean = s.series("loss_window_mean", split="train")
    first = greatest(s.series("loss_window_first", split="train"))
    lately = f"{mean}[{duration(max(window / 6, 10))}]"
    now = greatest(f"min_over_time({lately})")
    over = duration(window)
    high = greatest(f"max_over_time({mean}[{over}] offset {over})")
    return f"""\
{now} > {factor} * ({first} > 0)
unless {now} <= {factor} * {high}
unless on ({RUN}) {s.series("optimizer_gradient_norm")}
{going(s)}"""
