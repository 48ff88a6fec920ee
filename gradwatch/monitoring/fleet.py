"""The dashboard of all runs: what needs somebody, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradwatch.monitoring.board import FLEET, Row, board, runs_variable
from gradwatch.monitoring.charts import timeseries
from gradwatch.monitoring.notices import alert_table, finding_table, run_links
from gradwatch.monitoring.panels import (
    NONE_WANTED,
    Mark,
    Panel,
    Query,
    stat,
    state_timeline,
    status_history,
    texts,
)
from gradwatch.monitoring.queries import BY, CODES, Shown, positive
from gradwatch.monitoring.tables import Column, table
from gradwatch.monitoring.thresholds import Settings

__all__ = ["NONE", "STATES", "STATE_MARKS", "fleet"]

NONE: tuple[Mark, ...] = ((None, "green"), (1, "red"))
"""Of a number that should be 0."""

_COLORS = {
    "starting": "light-blue",
    "running": "green",
    "evaluating": "dark-green",
    "finished": "blue",
    "failed": "red",
    "interrupted": "yellow",
    "stalled": "orange",
    "lost": "dark-red",
}

STATES = texts(
    {str(code): name for name, code in CODES.items()},
    {str(code): _COLORS[name] for name, code in CODES.items()},
)
"""Code of a state -> its name and colour."""

STATE_MARKS: tuple[Mark, ...] = (
    (None, "text"),
    *((code, _COLORS[name]) for name, code in CODES.items()),
)
"""The same colours by value."""


def fleet(s: Settings) -> dict[str, Any]:
    """Returns the dashboard of all runs."""
    shown = Shown(s, "=~$runs")
    return board(
        FLEET,
        "gradwatch: all runs",
        "All runs that gradwatch sees: what needs somebody, and how they "
        "compare.",
        shown,
        [runs_variable()],
        [
            Row("Now", list(_now(shown))),
            Row("Runs", [_runs(shown)]),
            Row("What was found", [alert_table(shown), finding_table(shown)]),
            Row("Over time", list(_history(shown))),
            Row("Compared", list(_compared(shown))),
        ],
        since="now-6h",
    )


def _count(expr: str) -> str:
    """Returns how many there are, 0 if there is none."""
    return f"count({expr}) or vector(0)"


def _now(shown: Shown) -> Iterator[Panel]:
    yield from _states(shown)
    yield from _found(shown)
    yield from _services(shown)


def _states(shown: Shown) -> Iterator[Panel]:
    """Yields how many runs are how."""
    training = shown.newest("run_state", state="=~starting|running|evaluating")
    yield stat(
        "In training",
        "gradwatch_run_state: runs that are starting, running or evaluating, "
        "as their trainers told last; a killed one is among them until its "
        "directory is moved away.",
        "none",
        _count(f"{training} == 1"),
    )
    bad = shown.newest("run_health", health="=~stalled|lost")
    yield stat(
        "Lost or stalled",
        "gradwatch_run_health: runs that give no sign of life, or hang in a "
        "step. Look whether the process is there, then what it waits for.",
        "none",
        _count(f"{bad} == 1"),
        marks=NONE,
    )
    state = shown.series("run_state", state="failed")
    failed = f"max by ({BY}) (max_over_time({state}[$__range]))"
    yield stat(
        "Failed",
        "gradwatch_run_state: runs in the time range that have ended with an "
        "error, NaN among them. gradwatch status names it.",
        "none",
        _count(f"{failed} == 1"),
        marks=NONE,
    )


def _found(shown: Shown) -> Iterator[Panel]:
    """Yields how much was found in the time range."""
    yield stat(
        "With NaN or Inf",
        "gradwatch_last_nonfinite_timestamp_seconds: runs with such a step in "
        "the time range. Open the run: the finding names what came first.",
        "none",
        _count(shown.since("last_nonfinite_timestamp_seconds", BY)),
        marks=NONE,
    )
    yield stat(
        "Critical findings",
        "gradwatch_finding_last_timestamp_seconds: rules that found something "
        "critical in the time range, each once in a run. See Findings below.",
        "none",
        _count(
            shown.since(
                "finding_last_timestamp_seconds",
                f"{BY}, rule",
                severity="critical",
            )
        ),
        marks=NONE,
    )


def _services(shown: Shown) -> Iterator[Panel]:
    """Yields whether somebody would be told."""
    firing = shown.matchers(alertname="=~Gradwatch.*", alertstate="firing")
    yield stat(
        "Alerts",
        "ALERTS: alerts of gradwatch that fire now; none without the rules of "
        "dashboards/prometheus.",
        "none",
        _count(f"ALERTS{{{firing}}}"),
        marks=NONE,
    )
    yield stat(
        "Services down",
        "up: services that Prometheus cannot scrape. Their runs are trained "
        "unseen: start gradwatch serve again.",
        "none",
        _count(f"up{{{shown.matchers()}}} == 0"),
        marks=NONE,
    )
    least = shown.settings.value("disk_free_bytes")
    yield stat(
        "Disk left",
        "gradwatch_logdir_available_bytes: room where the runs are, the "
        "smallest. Training goes on without any, but nothing is recorded.",
        "decbytes",
        f"min({shown.service('logdir_available_bytes')})",
        marks=((None, "red"), (least, "yellow"), (10 * least, "green")),
    )


def _runs(shown: Shown) -> Panel:
    """The table: one row a run."""
    asked = _asked(shown)
    values = {
        f"Value #{chr(ord('A') + i)}": column
        for i, column in enumerate(asked.values())
        if column
    }
    return table(
        "Runs",
        "Click a run to open it. Loss and gradient norm are those of the last "
        "step, where they are finite; the last step that was not is "
        "gradwatch_last_nonfinite_step. Time left assumes that pauses go on as "
        "they did.",
        list(asked),
        {
            "run": Column("Run", width=240, links=run_links(shown)),
            **values,
            "experiment": Column("Name"),
            "model": Column("Model"),
            "optimizer": Column("Optimizer"),
            "host": Column("Host"),
        },
    )


def _asked(shown: Shown) -> dict[str, Column | None]:
    """Returns the table's queries -> the column of their value."""
    s = shown.settings
    about = shown.series("run_info")
    names = f"{BY}, experiment, model, optimizer, host"
    severe = shown.series("findings_total", severity="critical")
    return {
        f"max by ({names}) ({about})": None,
        shown.state(): Column("State", mappings=STATES, width=100),
        shown.newest("steps_total"): Column("Steps", "none", 80),
        shown.progress(): Column("Done", "percentunit", 70, decimals=0),
        shown.left(): Column("Left", "s", 90, decimals=0),
        shown.age("heartbeat_timestamp_seconds"): Column(
            "Last sign of life",
            "s",
            120,
            marks=((None, "text"), (s.value("lost_seconds"), "red")),
            decimals=0,
        ),
        f"max by ({BY}) ({shown.finite('loss', split='train')})": Column(
            "Loss", "short", 80, decimals=4
        ),
        f"max by ({BY}) ({shown.finite('gradient_norm')})": Column(
            "Gradient norm", "sci", 110, decimals=2
        ),
        f"{shown.newest('last_nonfinite_step')} >= 0": Column(
            "Last bad step", "none", 110, marks=((None, "red"),)
        ),
        f"sum by ({BY}) ({severe})": Column("Critical", "none", 80, marks=NONE),
    }


def _history(shown: Shown) -> Iterator[Panel]:
    state = f"max by (run) ({shown.state()})"
    yield state_timeline(
        "States",
        "gradwatch_run_state, and gradwatch_run_health where a run is stalled "
        "or lost.",
        [Query(state, "{{run}}")],
        marks=STATE_MARKS,
        mappings=STATES,
    )
    bad = shown.increase("nonfinite_events_total", "run")
    yield status_history(
        "NaN and Inf",
        "gradwatch_nonfinite_events_total: where a loss, gradient, weight or "
        "batch was not finite. What was so before the first scrape is marked "
        "on the charts only.",
        "none",
        [Query(bad, "{{run}}")],
        marks=NONE_WANTED,
        height=6,
    )


def _compared(shown: Shown) -> Iterator[Panel]:
    mean = shown.finite("loss_window_mean", split="train")
    yield timeseries(
        "Loss, mean of 256 steps",
        "gradwatch_loss_window_mean: finite training losses. The axis is "
        "logarithmic on both sides of 0. Which runs fall, and how far?",
        "short",
        [Query(f"max by (run) ({mean})", "{{run}}")],
        scale="symlog",
    )
    norm = positive(shown.series("gradient_norm"))
    yield timeseries(
        "Gradient norm",
        "gradwatch_gradient_norm: L2 norm of the whole gradient before "
        "clipping, where it is finite and not 0. Growth by decades comes "
        "before a NaN.",
        "sci",
        [Query(f"max by (run) ({norm})", "{{run}}")],
        scale="log",
    )
    yield timeseries(
        "Steps per second",
        "gradwatch_steps_total. A run that slows down waits for data, or "
        "shares its machine.",
        "ops",
        [Query(shown.rate("steps_total", "run"), "{{run}}")],
        limits=(0, None),
    )
    yield timeseries(
        "Examples per second",
        "gradwatch_trained_examples_total: comparable between batch sizes.",
        "ops",
        [Query(shown.rate("trained_examples_total", "run"), "{{run}}")],
        limits=(0, None),
    )
