"""One run's snapshot, as sheets of Prometheus series.

Works on the plain data of `RunState.snapshot()`, in memory or read back from
`state.json`, where NaN and the infinities are strings. Gauges tell the truth,
NaN included; counters and sums stay finite; no timestamps and no `_created`.
Must not import keras, tensorflow, the trainer's side or the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from gradwatch.families import Family, generic_scope, signal_family
from gradwatch.records import Phase
from gradwatch.runstate import ENDED, Snapshot
from gradwatch.sheets import Row, Sheet, clean, unique_labels
from gradwatch.signals import SIGNALS

__all__ = ["CHIEF", "MAX_SUBJECTS", "exports"]

MAX_SUBJECTS: Mapping[str, int] = {
    "variable": 100,
    "layer": 100,
    "component": 32,
    "optimizer": 16,
    "field": 32,
    "metric": 32,
}
"""Subjects of one kind that a run may have as labels; the first ones count."""

CHIEF = "0"
"""The rank that speaks for a run; of the others only life and time are told."""

_LABELS = 16  # of the user's own
_OTHER = "__other__"
_LOSSES = {"loss": "train", "validation_loss": "validation"}
_METRICS = {"metric": "train", "validation_metric": "validation"}
_SOURCES = ("loss", "gradient", "weight", "batch")
_KINDS = ("nan", "inf")


def exports(
    snapshot: Snapshot, catalogue: Mapping[str, Family]
) -> tuple[Sheet, Sheet]:
    """Returns what every run has, and what has a subject as label.

    Args:
        snapshot: the run's present.
        catalogue: the families by short name, as `families` returns them.
    """
    always, subjects = Sheet(catalogue), Sheet(catalogue)
    _add_rank(always, snapshot)
    if snapshot.get("rank", CHIEF) == CHIEF:
        _add_run(always, snapshot)
        _add_subjects(subjects, snapshot)
    always.close()
    subjects.close()
    return always, subjects


def _add_rank(sheet: Sheet, snapshot: Snapshot) -> None:
    """Adds what every worker of a run says for itself."""
    rank = (snapshot["run"]["id"], snapshot.get("rank", CHIEF))
    sheet.add("heartbeat_timestamp_seconds", rank, snapshot["heartbeat"])
    sheet.add("last_step_timestamp_seconds", rank, snapshot["last_step_time"])
    sheet.add("steps_total", rank, snapshot["steps"])
    waited = snapshot["counters"].get("data_wait", 0.0)
    sheet.add("batch_wait_seconds_total", rank, waited)
    durations = snapshot["step_duration"]
    sheet.add_histogram("step_duration_seconds", rank, durations)


def _add_run(sheet: Sheet, snapshot: Snapshot) -> None:
    """Adds what every run has, whatever its size."""
    run, identity = snapshot["run"]["id"], snapshot["run"]
    model, optimizer = snapshot["model"], snapshot["optimizer"]
    attributes = (identity["name"], model, "tensorflow", optimizer)
    sheet.add("run_info", (run, *attributes, identity["host"]), 1)
    for pair in [*identity.get("labels", {}).items()][:_LABELS]:
        sheet.add("run_label_info", (run, *pair), 1)
    for state in get_args(Phase):
        sheet.add("run_state", (run, state), state == snapshot["phase"])
    sheet.add("run_start_timestamp_seconds", (run,), identity["start"])
    sheet.add("run_end_timestamp_seconds", (run,), snapshot["end"])
    if snapshot["phase"] in ENDED:
        sheet.add("run_end_info", (run, snapshot["reason"]), 1)
    sheet.add("epoch", (run,), snapshot["epoch"])
    sheet.add("planned_steps", (run,), snapshot["planned_steps"])
    sheet.add("variables", (run,), snapshot["variables"])
    _add_values(sheet, run, snapshot)
    _add_counters(sheet, run, snapshot["counters"])
    for sink, count in snapshot["dropped"].items():
        sheet.add("events_dropped_total", (run, sink), count)
    for sink, count in snapshot["errors"].items():
        sheet.add("sink_errors_total", (run, sink), count)
    for sink, count in snapshot.get("queued", {}).items():
        sheet.add("event_queue_length", (run, sink), count)
    for phase, seconds in snapshot.get("costs", {}).items():
        sheet.add("callback_seconds_total", (run, phase), seconds)
    norms = snapshot["step_gradient_norm"]
    sheet.add_histogram("step_gradient_norm", (run,), norms)


def _add_values(sheet: Sheet, run: str, snapshot: Snapshot) -> None:
    for signal, _, value in snapshot["values"]:
        if signal in _LOSSES:
            sheet.add("loss", (run, _LOSSES[signal]), value)
        elif generic_scope(signal) == "run":
            sheet.add(signal_family(signal), (run,), value)
    for name in ("mean", "noise", "first"):
        if name in snapshot["loss_window"]:
            value = snapshot["loss_window"][name]
            sheet.add(f"loss_window_{name}", (run, "train"), value)


def _add_counters(sheet: Sheet, run: str, counters: Mapping[str, Any]) -> None:
    for reason, count in counters["skipped_steps"].items():
        sheet.add("skipped_steps_total", (run, reason), count)
    sheet.add("clipped_steps_total", (run,), counters["clipped_steps"])
    sheet.add("rollbacks_total", (run,), counters.get("rollbacks", 0))
    sheet.add("trained_examples_total", (run,), counters.get("examples", 0))
    last = counters["last_nonfinite_time"]
    sheet.add("last_nonfinite_timestamp_seconds", (run,), last)
    sheet.add("last_nonfinite_step", (run,), counters["last_nonfinite_step"])
    events = {(source, kind): 0 for source in _SOURCES for kind in _KINDS}
    events |= {(s, k): n for s, k, n in counters["nonfinite"]}
    for labels, count in events.items():
        sheet.add("nonfinite_events_total", (run, *labels), count)
    for *labels, count in counters["findings"]:
        sheet.add("findings_total", (run, *labels), count)
    for *labels, seconds in counters["finding_times"]:
        sheet.add("finding_last_timestamp_seconds", (run, *labels), seconds)


def _add_subjects(sheet: Sheet, snapshot: Snapshot) -> None:
    """Adds what has a variable, layer, component or metric as label."""
    run = clean(snapshot["run"]["id"])
    signals = {signal for signal, *_ in snapshot["values"]}
    kinds = {signal: _subject_kind(signal) for signal in signals}
    labels = _subject_labels(snapshot, kinds)
    names = {s: signal_family(s) for s, kind in kinds.items() if kind}
    for signal, subject, value in snapshot["values"]:
        kind = kinds[signal]
        if kind is None:
            sheet.dropped["unknown"] += signal not in SIGNALS
        elif (label := labels[kind].get(subject)) is None:
            sheet.dropped["subjects"] += 1
        elif kind == "metric":
            told = (run, _METRICS[signal], label)
            sheet.keep(Row("metric_value", told, float(value)))
        else:
            sheet.keep(Row(names[signal], (run, label), float(value)))
    sheet.add("variables_exported", (run,), len(labels["variable"]))
    _add_variable_events(sheet, run, snapshot, labels["variable"])


def _subject_kind(signal: str) -> str | None:
    """Returns a key of `MAX_SUBJECTS`; `None` if it has no such label."""
    kind = "metric" if signal in _METRICS else generic_scope(signal)
    return kind if kind in MAX_SUBJECTS else None


def _subject_labels(
    snapshot: Snapshot, kinds: Mapping[str, str | None]
) -> dict[str, dict[str, str]]:
    """Returns kind -> subject -> label value, chosen in the Schema's order."""
    subjects: dict[str, list[str]] = {kind: [] for kind in MAX_SUBJECTS}
    for signal, subject, _ in snapshot["values"]:
        if kind := kinds[signal]:
            subjects[kind].append(subject)
    events = snapshot["counters"]["variable_nonfinite"]
    subjects["variable"] += [path for path, _ in events]
    return {
        kind: unique_labels(subjects[kind], limit)
        for kind, limit in MAX_SUBJECTS.items()
    }


def _add_variable_events(
    sheet: Sheet, run: str, snapshot: Snapshot, labels: Mapping[str, str]
) -> None:
    """Adds the counter of each exported variable and one for the rest."""
    events = dict.fromkeys(labels.values(), 0)
    for path, count in snapshot["counters"]["variable_nonfinite"]:
        label = labels.get(path, _OTHER)
        events[label] = events.get(label, 0) + count
    name = "variable_nonfinite_events_total"
    for label, count in events.items():
        sheet.keep(Row(name, (run, label), float(count)))
