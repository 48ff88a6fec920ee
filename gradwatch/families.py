"""The catalogue of Prometheus families: names, labels and help texts.

Names are public. What a signal measures is not repeated here: its family
derives from `SIGNALS`. Imports nothing but signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradwatch.signals import SIGNALS, Scope, prometheus_name

__all__ = ["Family", "Kind", "families", "generic_scope", "signal_family"]

Kind = Literal["gauge", "counter", "histogram", "info"]

_PREFIX = "gradwatch_"


@dataclass(frozen=True, slots=True)
class Family:
    """A Prometheus metric family.

    Attributes:
        name: as it appears in queries, with `_total` or `_info`.
        kind: its Prometheus type; `info` is exposed as a gauge that is 1.
        labels: label names; `run` comes first where the family has it.
        meaning: one sentence, the help text.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


def _rows(
    kind: Kind, *rows: tuple[str, str, str]
) -> tuple[tuple[str, Kind, str, str], ...]:
    return tuple(
        (name, kind, labels, meaning) for name, labels, meaning in rows
    )


_CATALOGUE = (
    *_rows(
        "info",
        (
            "build_info",
            "version keras_version python_version",
            "Versions of the process that serves this page.",
        ),
        (
            "run_info",
            "run experiment model backend optimizer host",
            "What is known about a run; experiment is the name of the run.",
        ),
        (
            "run_label_info",
            "run key value",
            "A label that the user has given the run.",
        ),
        (
            "run_end_info",
            "run reason",
            "Why a run has ended: nonfinite, the name of an exception, or "
            "nothing where it is finished.",
        ),
    ),
    *_rows(
        "gauge",
        ("runs", "", "Runs on this page."),
        (
            "collect_duration_seconds",
            "",
            "Time that collecting this page took.",
        ),
        (
            "logdir_available_bytes",
            "logdir",
            "Bytes that can still be written where the runs are.",
        ),
        ("run_state", "run state", "1 for the state that the trainer told."),
        (
            "run_health",
            "run health",
            "1 for the health that the service sees: a lost run has not kept "
            "its promised sign of life, a stalled one hangs in a step.",
        ),
        ("run_start_timestamp_seconds", "run", "Unix time of the run's start."),
        (
            "run_end_timestamp_seconds",
            "run",
            "Unix time at which the run ended; 0 while it has not.",
        ),
        (
            "heartbeat_timestamp_seconds",
            "run rank",
            "Unix time of the last sign of life, also between steps.",
        ),
        (
            "last_step_timestamp_seconds",
            "run rank",
            "Unix time at which the last step ended; 0 = none yet.",
        ),
        ("epoch", "run", "Last finished epoch, 0-based; -1 = none yet."),
        ("planned_steps", "run", "Steps planned in this fit; 0 = unknown."),
        (
            "loss",
            "run split",
            "Newest total loss: of the last step (train) or of the last "
            "validation, NaN verbatim.",
        ),
        (
            "metric_value",
            "run split metric",
            "A Keras metric at the end of the last epoch.",
        ),
        (
            "loss_window_mean",
            "run split",
            "Mean of the finite losses among the last 256 steps.",
        ),
        (
            "loss_window_noise",
            "run split",
            "Robust spread (1.4826 MAD) of the finite losses among the last "
            "256 steps.",
        ),
        (
            "loss_window_first",
            "run split",
            "Loss before anything was learned: the mean of the first two "
            "finite losses, or the median of the first 16 if it is higher.",
        ),
        (
            "event_queue_length",
            "run sink",
            "Records that wait in the queue of a sink.",
        ),
        ("variables", "run", "Variables of the model."),
        (
            "variables_exported",
            "run",
            "Variables that have series of their own on this page.",
        ),
        (
            "last_nonfinite_timestamp_seconds",
            "run",
            "Unix time of the last step that was not finite; 0 = never.",
        ),
        (
            "last_nonfinite_step",
            "run",
            "Number of the last step that was not finite, 0-based; -1 = none.",
        ),
        (
            "finding_last_timestamp_seconds",
            "run rule severity subject",
            "Unix time at which a finding was last said.",
        ),
    ),
    *_rows(
        "counter",
        (
            "source_errors_total",
            "reason",
            "Run directories that could not be read, counted at every scan.",
        ),
        ("steps_total", "run rank", "Training steps that have been read."),
        (
            "trained_examples_total",
            "run",
            "Examples that were trained on.",
        ),
        (
            "batch_wait_seconds_total",
            "run rank",
            "Time that steps have waited for their batches.",
        ),
        (
            "nonfinite_events_total",
            "run source kind",
            "Steps at which a loss, gradient, weight or batch held NaN or Inf.",
        ),
        (
            "variable_nonfinite_events_total",
            "run variable",
            "Steps at which the gradient of a variable held NaN or Inf; "
            "__other__ stands for all variables that are not exported.",
        ),
        (
            "skipped_steps_total",
            "run reason",
            "Steps whose gradients the guard, or loss scaling, kept out.",
        ),
        (
            "clipped_steps_total",
            "run",
            "Steps at which an optimizer's own clipping bound.",
        ),
        (
            "rollbacks_total",
            "run",
            "Times that the model went back to a snapshot after a bad step.",
        ),
        ("findings_total", "run rule severity", "Findings that were said."),
        (
            "events_dropped_total",
            "run sink",
            "Blocks that the full queue of a sink has dropped.",
        ),
        ("sink_errors_total", "run sink", "Exceptions that a sink raised."),
        (
            "callback_seconds_total",
            "run phase",
            "What watching took beside the step: begin, of the training "
            "thread; judge and write, of a core, on threads of their own.",
        ),
        (
            "series_dropped_total",
            "run reason",
            "Series of a run that are left out of this page (the most so far).",
        ),
    ),
    *_rows(
        "histogram",
        (
            "step_duration_seconds",
            "run rank",
            "Time from step end to step end.",
        ),
        (
            "step_gradient_norm",
            "run",
            "Global gradient norm of every recorded step that was finite.",
        ),
    ),
)


def generic_scope(signal: str) -> Scope | None:
    """Returns the scope of a signal that has a gauge of its own.

    Args:
        signal: any name.

    Returns:
        `None` for signals that are unknown or a histogram, and for those that
        a family of the catalogue tells better: flags by counters, losses and
        metrics by one family with the label `split`.
    """
    known = SIGNALS.get(signal)
    if known is None or known.scope == "epoch" or signal == "loss":
        return None
    if known.unit == "flag" or known.histogram:
        return None
    return known.scope


def signal_family(signal: str) -> str:
    """Returns the short name of the family of a generic signal."""
    return prometheus_name(signal).removeprefix(_PREFIX)


def families() -> dict[str, Family]:
    """Returns all families by short name: without the prefix `gradwatch_`."""
    catalogue = {
        name: Family(_PREFIX + name, kind, tuple(labels.split()), meaning)
        for name, kind, labels, meaning in _CATALOGUE
    }
    for signal in SIGNALS.values():
        if scope := generic_scope(signal.name):
            labels = ("run",) if scope == "run" else ("run", scope)
            name = prometheus_name(signal.name)
            family = Family(name, "gauge", labels, signal.meaning)
            catalogue.setdefault(signal_family(signal.name), family)
    return catalogue
