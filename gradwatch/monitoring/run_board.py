"""The dashboard of one run: does it live, does it learn, what is wrong?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradwatch.monitoring.board import RUN, Row, board, run_variable
from gradwatch.monitoring.charts import heatmap, timeseries
from gradwatch.monitoring.fleet import NONE, STATE_MARKS, STATES
from gradwatch.monitoring.loss_panels import loss, parts
from gradwatch.monitoring.notices import finding_table
from gradwatch.monitoring.panels import (
    NONE_WANTED,
    Panel,
    Query,
    stat,
    status_history,
)
from gradwatch.monitoring.performance import performance
from gradwatch.monitoring.queries import BY, RATE, Shown
from gradwatch.monitoring.tables import Column, table
from gradwatch.monitoring.thresholds import Settings

__all__ = ["run_board"]


def run_board(s: Settings) -> dict[str, Any]:
    """Returns the dashboard of one run."""
    shown = Shown(s, "$run")
    return board(
        RUN,
        "gradwatch: one run",
        "One run: does it live, does it learn, what is wrong?",
        shown,
        [run_variable()],
        [
            Row("Health", list(_health(shown))),
            Row("What was found", [finding_table(shown)]),
            Row("Loss", list(loss(shown))),
            Row("Gradient", list(_gradient(shown))),
            Row("NaN and Inf", list(_nonfinite(shown)), collapsed=True),
            Row("Parts of the loss", list(parts(shown)), collapsed=True),
            Row("Performance", list(performance(shown)), collapsed=True),
        ],
        page="runs/${run}",
    )


def _health(shown: Shown) -> Iterator[Panel]:
    yield from _progress(shown)
    yield from _ages(shown)
    yield from _faults(shown)


def _progress(shown: Shown) -> Iterator[Panel]:
    """Yields what the run does, and how far it is."""
    yield stat(
        "State",
        "gradwatch_run_state as the trainer told it, or gradwatch_run_health: "
        "lost or stalled.",
        "none",
        shown.state(),
        marks=STATE_MARKS,
        mappings=STATES,
    )
    yield stat(
        "Done",
        "gradwatch_steps_total over gradwatch_planned_steps; nothing where no "
        "number of steps is planned.",
        "percentunit",
        shown.progress(),
        decimals=0,
    )
    yield stat(
        "Left",
        "Time until the planned steps are done, if pauses and validations go "
        "on as they did.",
        "s",
        shown.left(),
        decimals=0,
    )


def _ages(shown: Shown) -> Iterator[Panel]:
    """Yields when something happened last."""
    s = shown.settings
    yield stat(
        "Last sign of life",
        "gradwatch_heartbeat_timestamp_seconds, while the run goes on. Red: "
        "the process was killed, or its machine is gone.",
        "s",
        shown.age("heartbeat_timestamp_seconds"),
        marks=((None, "green"), (s.value("lost_seconds"), "red")),
        decimals=0,
    )
    yield stat(
        "Last step",
        "gradwatch_last_step_timestamp_seconds, while the run goes on. Red: it "
        "may hang. See what the process waits for: py-spy dump --pid PID.",
        "s",
        shown.age("last_step_timestamp_seconds"),
        marks=((None, "green"), (s.value("stalled_run_seconds"), "red")),
        decimals=0,
    )
    yield stat(
        "Last bad step",
        "gradwatch_last_nonfinite_step: the last step with NaN or Inf. The "
        "finding says where it began; gradwatch autopsy names the operation.",
        "none",
        f"{shown.newest('last_nonfinite_step')} >= 0",
        marks=((None, "red"),),
        none="none",
    )


def _faults(shown: Shown) -> Iterator[Panel]:
    """Yields what was found, and what may be."""
    s = shown.settings
    severe = shown.series("findings_total", severity="=~critical|warning")
    yield stat(
        "Found so far",
        "gradwatch_findings_total: critical ones and warnings since the run "
        "began. They stand below.",
        "none",
        f"sum by ({BY}) ({severe}) or vector(0)",
        marks=((None, "green"), (1, "orange")),
    )
    yield stat(
        "Loss scale",
        "gradwatch_loss_scale of mixed precision. Red: it has collapsed, and "
        "small gradients are lost in float16.",
        "short",
        f"max by ({BY}) ({shown.finite('loss_scale')})",
        marks=((None, "red"), (s.value("loss_scale"), "green")),
        none="not used",
    )


def _gradient(shown: Shown) -> Iterator[Panel]:
    yield from _norms(shown)
    yield from _shares(shown)


def _norms(shown: Shown) -> Iterator[Panel]:
    """Yields how large gradients are."""
    usual = shown.recorded("run:gradwatch_gradient_norm:median30m")
    applied = shown.positive("applied_gradient_norm")
    yield timeseries(
        "Gradient norm",
        "gradwatch_gradient_norm: L2 norm of the whole gradient before "
        "clipping, where it is finite and not 0; applied: after clipping. The "
        "dashed line is its median of half an hour, from the recording rules. "
        "Growth by decades: lower the learning rate, or clip.",
        "sci",
        [
            Query(shown.positive("gradient_norm"), "gradient norm"),
            Query(applied, "applied"),
            Query(f"{usual} > 0", "median", dashed=True),
        ],
        scale="log",
    )
    buckets = shown.increase("step_gradient_norm_bucket", "le")
    yield heatmap(
        "Gradient norms of all steps",
        "gradwatch_step_gradient_norm: the chart beside it sees one step a "
        "scrape, this one all that were finite.",
        "sci",
        buckets,
    )


def _shares(shown: Shown) -> Iterator[Panel]:
    """Yields how much of gradients and examples counts."""
    steps = shown.rate("steps_total")
    clipped = shown.rate("clipped_steps_total")
    skipped = f"sum by ({BY}, reason) (rate("
    skipped += f"{shown.series('skipped_steps_total')}[{RATE}]))"
    yield timeseries(
        "Steps that were clipped or skipped",
        "gradwatch_clipped_steps_total and gradwatch_skipped_steps_total, by "
        "reason, as shares of all steps. If loss scaling skips more than the "
        "line says, GradwatchSkippedUpdates fires: something overflows "
        "float16.",
        "percentunit",
        [
            Query(f"{clipped} / ({steps} > 0)", "clipped"),
            Query(
                f"{skipped} / on ({BY}) group_left () ({steps} > 0)",
                "skipped: {{reason}}",
            ),
        ],
        marks=(
            (None, "text"),
            (shown.settings.value("skipped_ratio"), "red"),
        ),
        limits=(0, 1),
    )
    yield timeseries(
        "Largest losses of a batch",
        "gradwatch_example_loss_median, _high (90 %) and _max of the last "
        "X-ray: one example that is far above the others is often mislabelled, "
        "or an outlier.",
        "short",
        [
            Query(shown.finite(f"example_loss_{which}"), which)
            for which in ("median", "high", "max")
        ],
        scale="symlog",
    )


def _nonfinite(shown: Shown) -> Iterator[Panel]:
    events = shown.increase("nonfinite_events_total", "source, kind")
    yield status_history(
        "Where NaN and Inf were",
        "gradwatch_nonfinite_events_total by source and kind. Batch: look at "
        "the data. Loss, not batch: at the loss. Gradient alone: at a "
        "derivative. Weight: it happened before.",
        "none",
        [Query(events, "{{source}}: {{kind}}")],
        marks=NONE_WANTED,
        width=12,
    )
    counted = shown.series("variable_nonfinite_events_total")
    yield table(
        "Variables whose gradient was NaN or Inf",
        "gradwatch_variable_nonfinite_events_total since the run began. The "
        "last layer of the model among them is where it began: gradients go "
        "backwards.",
        [f"max by (variable) ({counted}) > 0"],
        {
            "variable": Column("Variable"),
            "Value": Column("Steps", "none", 100, marks=NONE),
        },
        width=12,
        sort="Steps",
    )
