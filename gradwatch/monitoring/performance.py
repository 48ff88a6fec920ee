"""Panels on how fast a run is, and what watching it costs and loses."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.monitoring.charts import timeseries
from gradwatch.monitoring.liveness import STEP_TIME
from gradwatch.monitoring.panels import Panel, Query
from gradwatch.monitoring.queries import BY, RATE, Shown
from gradwatch.monitoring.thresholds import duration

__all__ = ["performance"]


def performance(shown: Shown) -> Iterator[Panel]:
    """Yields the panels."""
    yield _step_time(shown)
    yield _speed(shown)
    yield _waiting(shown)
    yield _cost(shown)
    yield _queues(shown)
    yield _series(shown)


def _step_time(shown: Shown) -> Panel:
    s = shown.settings
    total = shown.rate("step_duration_seconds_sum", f"{BY}, rank")
    count = shown.rate("step_duration_seconds_count", f"{BY}, rank")
    series = shown.series("step_duration_seconds_bucket")
    buckets = f"sum by (le) (rate({series}[{RATE}]))"
    window = duration(s.value("step_time_seconds"))
    before = f"[{window}] offset {s.range(600)}"
    factor = s.number("step_time_factor")
    usual = f"avg_over_time({shown.recorded(STEP_TIME)}{before})"
    return timeseries(
        "Time of a step",
        "gradwatch_step_duration_seconds: from step end to step end, the mean "
        "of each rank and the slowest of a hundred. Above the dashed line, "
        "from the recording rules, GradwatchStepTimeRegression fires: other "
        "load, throttling, or the input pipeline.",
        "s",
        [
            Query(f"{total} / ({count} > 0)", "mean, rank {{rank}}"),
            # NaN where no step ended.
            Query(
                f"histogram_quantile(0.99, {buckets}) >= 0", "slowest of 100"
            ),
            Query(f"{factor} * {usual}", "slow above", dashed=True),
        ],
        scale="log",
    )


def _speed(shown: Shown) -> Panel:
    return timeseries(
        "Steps and examples per second",
        "gradwatch_steps_total and gradwatch_trained_examples_total.",
        "ops",
        [
            Query(shown.rate("steps_total"), "steps"),
            Query(shown.rate("trained_examples_total"), "examples"),
        ],
        scale="log",
    )


def _waiting(shown: Shown) -> Panel:
    ranks = f"{BY}, rank"
    waited = shown.rate("batch_wait_seconds_total", ranks)
    took = shown.rate("step_duration_seconds_sum", ranks)
    return timeseries(
        "Share of the time spent waiting for data",
        "gradwatch_batch_wait_seconds_total over the sum of "
        "gradwatch_step_duration_seconds. Much of it: prefetch, read in "
        "parallel, or cache.",
        "percentunit",
        [Query(f"{waited} / ({took} > 0)", "rank {{rank}}")],
        limits=(0, 1),
    )


def _cost(shown: Shown) -> Panel:
    return timeseries(
        "What watching costs",
        "gradwatch_xray_share_ratio: X-rays become rarer by themselves where "
        "they would cost more than the budget of GradWatch. "
        "gradwatch_callback_seconds_total: judging and writing, the share of a "
        "core, on threads of their own; what fits took to begin, once each.",
        "percentunit",
        [
            Query(shown.finite("xray_share_ratio"), "X-rays, of the steps"),
            Query(shown.rate("callback_seconds_total", "phase"), "{{phase}}"),
        ],
        limits=(0, None),
    )


def _queues(shown: Shown) -> Panel:
    dropped = shown.increase("events_dropped_total", "sink")
    raised = shown.increase("sink_errors_total", "sink")
    return timeseries(
        "Sinks",
        "gradwatch_event_queue_length, gradwatch_events_dropped_total and "
        "gradwatch_sink_errors_total. If anything is dropped or fails, "
        "GradwatchLostReadings fires: is the disk slow, or full? Training does "
        "not wait for it.",
        "short",
        [
            Query(shown.series("event_queue_length"), "{{sink}}: waiting"),
            Query(dropped, "{{sink}}: dropped"),
            Query(raised, "{{sink}}: errors"),
        ],
        limits=(0, None),
    )


def _series(shown: Shown) -> Panel:
    left_out = f"sum by ({BY}) ({shown.series('series_dropped_total')})"
    return timeseries(
        "Variables with series of their own",
        "gradwatch_variables_exported of gradwatch_variables, and what is left "
        "out by gradwatch_series_dropped_total. The event file has all of "
        "them.",
        "none",
        [
            Query(shown.newest("variables"), "variables"),
            Query(shown.newest("variables_exported"), "exported"),
            Query(left_out, "series left out"),
        ],
        limits=(0, None),
    )
