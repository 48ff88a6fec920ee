"""Alerts on runs as such, and on the service that shows them."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.monitoring.alert import RUN, Alert, going, greatest
from gradwatch.monitoring.thresholds import Settings, duration

__all__ = ["STEP_TIME", "run_alerts", "service_alerts"]

STEP_TIME = "run_rank:gradwatch_step_duration_seconds:mean5m"
"""Recorded: the mean time of a step, in seconds."""

_NEAR = 300  # seconds before its end in which what ends a run is found
_STATUS = "`gradwatch status --logdir LOGDIR`"


def run_alerts(s: Settings) -> Iterator[Alert]:
    """Yields the alerts on how a run does, whatever rules it has."""
    yield _nonfinite(s)
    yield _failed(s)
    yield _lost(s)
    yield _stalled(s)
    yield _slow(s)
    yield _collapsed(s)


def service_alerts(s: Settings) -> Iterator[Alert]:
    """Yields the alerts on what all other alerts depend on."""
    yield _down(s)
    yield _absent(s)
    yield _full(s)
    yield _cut(s)
    yield Alert(
        "Watchdog",
        "none",
        "vector(1)",
        "Fires always: alerts get through.",
        "Alerts get through from Prometheus to this receiver.",
        "Only its absence means something: whoever expects it has had no "
        "sign of life. Look at Prometheus' page, then at Alertmanager's.",
        "Start what is down. Until then, nobody is told anything.",
        steady=False,
        dashboard="gradwatch-fleet",
    )


def _beat(s: Settings) -> str:
    """Returns the age of the last sign of life, in seconds."""
    return f"(time() - {greatest(s.series('heartbeat_timestamp_seconds'))})"


def _nonfinite(s: Settings) -> Alert:
    last = greatest(s.series("last_nonfinite_timestamp_seconds"))
    found = s.series("finding_last_timestamp_seconds", rule="=~nonfinite_.*")
    return Alert(
        "GradwatchNonfiniteStep",
        "critical",
        f"{last} > 0 > time() - {s.number('nonfinite_seconds')}\n"
        f"unless on ({RUN}) {found}",
        "A step held NaN or Inf, and no rule told it.",
        "Run {{ $labels.run }} had a step that was not finite, which none of "
        "its rules has told.",
        "`gradwatch_last_nonfinite_step`, and by `source` (loss, gradient, "
        "weight, batch) `gradwatch_nonfinite_events_total`.",
        "Add `default_rules()` to the run's `rules`: they name what came "
        "first. `gradwatch autopsy RUN_DIR` names the operation.",
    )


def _failed(s: Settings) -> Alert:
    failed = greatest(s.series("run_state", state="failed"))
    found = greatest(
        s.series(
            "finding_last_timestamp_seconds",
            rule="=~nonfinite_.*|too_many_skips|rolled_back",
            severity="critical",
        )
    )
    ended = greatest(s.series("run_end_timestamp_seconds"))
    return Alert(
        "GradwatchRunFailed",
        "critical",
        f"{failed} == 1\nunless\n(\n  {found}\n  > {ended} - {_NEAR}\n)",
        "A run has ended with an error that is no NaN.",
        "Run {{ $labels.run }} has failed. What it had found is in its run "
        "directory.",
        f"{_STATUS} shows the exception's name; the trainer's own output has "
        "the traceback.",
        "Mend what raised, and start again from the last checkpoint. A run "
        "that NaN has ended has an alert of its own instead of this one.",
    )


def _lost(s: Settings) -> Alert:
    lost = s.number("lost_seconds")
    return Alert(
        "GradwatchRunLost",
        "critical",
        f"{_beat(s)} > {lost} < {s.number('forget_seconds')}\n{going(s)}",
        "A run gives no sign of life and has not said that it ended.",
        "Run {{ $labels.run }} has given no sign of life for "
        "{{ humanizeDuration $value }}: killed, out of memory, or its machine "
        "is gone.",
        "Is the process there (`host` of `gradwatch_run_info`)? The kernel's "
        "log says whether it was out of memory. Can the service still see the "
        "run directory?",
        "Start again from the last checkpoint. The alert ends when the "
        "directory of the lost run is moved away, at the latest after a day.",
    )


def _stalled(s: Settings) -> Alert:
    started = greatest(s.series("run_start_timestamp_seconds"))
    last = greatest(s.series("last_step_timestamp_seconds"))
    running = s.series("run_state", state="running")
    unread = s.series("finding_last_timestamp_seconds", rule="no_readings")
    # The service knows a checkpoint or an evaluation from a step that hangs;
    # where a trainer is scraped itself, nobody has said.
    well = s.series("run_health", health="ok")
    return Alert(
        "GradwatchRunStalled",
        "critical",
        f"""\
(
  time() - ({last} > 0)
    > {_patience(s)}
  or
  time() - {started}
    > {s.number("first_step_seconds")}
    and {last} == 0
)
and on ({RUN}) {running} == 1
and on ({RUN}) {_beat(s)} <= {s.number("lost_seconds")}
unless on ({RUN}) {unread}
unless on ({RUN}) {well} == 1""",
        "A run lives but makes no step.",
        "Run {{ $labels.run }} lives, but its last step ended "
        "{{ humanizeDuration $value }} ago.",
        "What the process waits for: `py-spy dump --pid PID`. Mostly it is the "
        "data (a full or dead file system, a queue), or another worker.",
        "If it hangs for good, end it and start again from the last "
        "checkpoint.",
        wait=s.scaled(120),
    )


def _patience(s: Settings) -> str:
    """Returns the seconds that a step may take."""
    total = s.series("step_duration_seconds_sum")
    count = s.series("step_duration_seconds_count")
    mean = greatest(f"{total} / ({count} > 0)")
    none = f"0 * {greatest(s.series('steps_total'))}"
    return f"""\
clamp_min(
        {s.number("stalled_run_steps")} * {mean}
          or {none},
        {s.number("stalled_run_seconds")}
      )"""


def _slow(s: Settings) -> Alert:
    mean = f"{STEP_TIME}{{{s.matchers()}}}"
    window = duration(s.value("step_time_seconds"))
    return Alert(
        "GradwatchStepTimeRegression",
        "warning",
        f"{mean}\n  > {s.number('step_time_factor')}\n    * avg_over_time("
        f"{mean}[{window}] offset {s.range(600)})\n{going(s)}",
        "Steps take far longer than they did.",
        "Run {{ $labels.run }}: a step now takes "
        "{{ humanizeDuration $value }}.",
        "Other load on the machine, throttling, the input pipeline; with "
        "growing shapes, tracing.",
        "Move the other load or the run; prefetch the data.",
        wait=s.scaled(900, 60),
    )


def _collapsed(s: Settings) -> Alert:
    scale = greatest(s.series("loss_scale"))
    return Alert(
        "GradwatchLossScaleCollapsed",
        "warning",
        f"{scale} < {s.number('loss_scale')}\n{going(s)}",
        "Mixed precision has lowered its loss scale to next to nothing.",
        "Run {{ $labels.run }}: the loss scale is {{ $value }}, so small "
        "gradients are lost in float16.",
        '`gradwatch_skipped_steps_total{reason="loss_scale"}`: how often '
        "gradients overflowed.",
        "Let what overflows float16 (a sum, an exponential, a mask of -1e9) "
        "compute in float32, or train in bfloat16.",
        wait=s.scaled(300),
    )


def _down(s: Settings) -> Alert:
    return Alert(
        "GradwatchExporterDown",
        "critical",
        f"up{{{s.matchers()}}} == 0",
        "The service does not answer: runs are trained unseen.",
        "Prometheus cannot scrape {{ $labels.instance }}.",
        "Does `gradwatch serve` run, and does its `/-/healthy` answer? "
        "Prometheus' page *Targets* has the error.",
        "Start it again; it has no state of its own. Training does not need "
        "it.",
        wait=s.value("exporter_seconds"),
        steady=False,
        dashboard="gradwatch-fleet",
    )


def _absent(s: Settings) -> Alert:
    return Alert(
        "GradwatchExporterAbsent",
        "critical",
        f"absent(up{{{s.matchers()}}}) == 1",
        "Prometheus does not know of any gradwatch service.",
        "There is no target of the job {{ $labels.job }}.",
        "`scrape_configs` in Prometheus' configuration, and its job's name.",
        "Add the target, or build the rules with `--job`.",
        wait=s.scaled(300),
        steady=False,
        dashboard="gradwatch-fleet",
    )


def _full(s: Settings) -> Alert:
    free = s.series("logdir_available_bytes")
    # So long that its runs have been seen again when it is resolved.
    lately = duration(s.scaled(60, 12))
    return Alert(
        "GradwatchDiskFull",
        "critical",
        f"min_over_time({free}[{lately}])\n  < {s.number('disk_free_bytes')}",
        "The disk that runs are written to is full.",
        "{{ $labels.logdir }} on {{ $labels.instance }} has "
        "{{ humanize1024 $value }}B left. Training goes on, but nothing is "
        "recorded, and its runs look lost.",
        "`df LOGDIR`, `du -s LOGDIR/*`: a run of gradwatch takes 256 MB at "
        "most, black boxes (`blackbox/`) come on top.",
        "Make room. The runs are seen again within seconds, with all their "
        "counts; what could not be recorded meanwhile is missing.",
        steady=False,
        dashboard="gradwatch-fleet",
    )


def _cut(s: Settings) -> Alert:
    dropped = s.series("series_dropped_total")
    return Alert(
        "GradwatchSeriesLimitHit",
        "info",
        f"sum by ({RUN}) ({dropped}) > 0",
        "Not all variables or layers of a run have metrics.",
        "Run {{ $labels.run }}: {{ $value }} series are left out.",
        "`gradwatch_series_dropped_total` by `reason`; `gradwatch_variables` "
        "against `gradwatch_variables_exported`.",
        "Nothing is lost: all are in the event file. Rules on single "
        "variables are judged in the trainer, over all of them.",
        wait=s.scaled(300),
    )
