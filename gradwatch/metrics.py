"""What Prometheus is told about runs: snapshots to metric families.

Works on the plain data of `RunState.snapshot()`, in memory or read back from
`state.json`, where NaN and the infinities are strings. Gauges tell the truth,
NaN included; counters and sums stay finite; no timestamps and no `_created`.
Must not import keras, tensorflow, the trainer's side or the service.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, get_args

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gradwatch.exposition import (
    DROP_REASONS,
    Page,
    empty_family,
    unique_labels,
)
from gradwatch.families import families, generic_scope, signal_family
from gradwatch.records import Phase
from gradwatch.signals import SIGNALS

__all__ = [
    "HEALTHS",
    "MAX_SERIES",
    "MAX_SUBJECTS",
    "Endpoint",
    "RunCollector",
    "Snapshot",
    "installed_version",
    "serve_metrics",
]

Snapshot = Mapping[str, Any]
"""Plain data as `RunState.snapshot` returns it."""

HEALTHS = ("ok", "lost")
"""What the service can say about a run that the trainer cannot."""

MAX_SUBJECTS: Mapping[str, int] = {
    "variable": 100,
    "layer": 100,
    "component": 32,
    "optimizer": 16,
    "field": 32,
    "metric": 32,
}
"""Subjects of one kind that a run may have as labels; the first ones count."""

MAX_SERIES = 20_000
"""Of one page: Prometheus' own `sample_limit` would fail the whole scrape."""

_OTHER = "__other__"
_RANK = "0"
_LOSSES = {"loss": "train", "validation_loss": "validation"}
_METRICS = {"metric": "train", "validation_metric": "validation"}
_SOURCES = ("loss", "gradient", "weight", "batch")
_KINDS = ("nan", "inf")


class RunCollector(Collector):
    """Collects the families of some runs; state lives elsewhere.

    Args:
        snapshots: called at every collection; the runs, the most important
            first: where a limit cuts, it cuts the last ones.
        source_errors: called after `snapshots`; reason -> unreadable run
            directories so far. `None` where nothing is read.
        health: snapshot -> one of `HEALTHS`. `None` in the training process,
            which cannot tell that it was killed.
        max_series: series on one page; what is beyond is counted.
    """

    def __init__(
        self,
        snapshots: Callable[[], Iterable[Snapshot]],
        source_errors: Callable[[], Mapping[str, int]] | None = None,
        *,
        health: Callable[[Snapshot], str] | None = None,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._snapshots = snapshots
        self._source_errors = source_errors
        self._health = health
        self._max_series = max_series
        self._catalogue = families()
        self._dropped: dict[tuple[str, str], int] = {}
        packages = map(installed_version, ("gradwatch", "keras"))
        self._versions = (*packages, platform.python_version())

    def describe(self) -> Iterator[Metric]:
        """Yields all families without samples, for the registry's names."""
        yield from map(empty_family, self._catalogue.values())

    def collect(self) -> Iterator[Metric]:
        """Yields the families of the runs that exist now."""
        began = time.perf_counter()
        snapshots = list(self._snapshots())
        reserved = len(DROP_REASONS) * len(snapshots) + 1
        page = Page(self._catalogue, self._max_series - reserved)
        page.add("build_info", self._versions, 1)
        page.add("runs", (), len(snapshots))
        if self._source_errors:
            for reason, count in self._source_errors().items():
                page.add("source_errors_total", (reason,), count)
        for snapshot in snapshots:
            _add_run(page, snapshot)
            if self._health:
                run, health = _id(snapshot), self._health(snapshot)
                for name in HEALTHS:
                    page.add("run_health", (run, name), name == health)
        # After all that a run cannot do without, because the limit cuts last.
        for snapshot in snapshots:
            _add_subjects(page, snapshot)
        page.allow(reserved)
        dropped = self._most_dropped(page, map(_id, snapshots))
        for labels, count in dropped.items():
            page.add("series_dropped_total", labels, count)
        took = time.perf_counter() - began
        page.add("collect_duration_seconds", (), took)
        yield from page.metrics()

    def _most_dropped(
        self, page: Page, runs: Iterable[str]
    ) -> dict[tuple[str, str], int]:
        """Returns (run, reason) -> most so far: a counter never falls."""
        self._dropped = {
            (run, reason): max(
                page.dropped[run, reason], self._dropped.get((run, reason), 0)
            )
            for run in runs
            for reason in DROP_REASONS
        }
        return self._dropped


def installed_version(package: str) -> str:
    """Returns the version of a distribution, `""` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _id(snapshot: Snapshot) -> str:
    return str(snapshot["run"]["id"])


def _add_run(page: Page, snapshot: Snapshot) -> None:
    """Adds what every run has, whatever its size."""
    run, identity = _id(snapshot), snapshot["run"]
    model, optimizer = snapshot["model"], snapshot["optimizer"]
    attributes = (identity["name"], model, "tensorflow", optimizer)
    page.add("run_info", (run, *attributes, identity["host"]), 1)
    for state in get_args(Phase):
        page.add("run_state", (run, state), state == snapshot["phase"])
    page.add("run_start_timestamp_seconds", (run,), identity["start"])
    page.add("run_end_timestamp_seconds", (run,), snapshot["end"])
    rank = (run, _RANK)
    page.add("heartbeat_timestamp_seconds", rank, snapshot["heartbeat"])
    page.add("last_step_timestamp_seconds", rank, snapshot["last_step_time"])
    page.add("steps_total", rank, snapshot["steps"])
    page.add("epoch", (run,), snapshot["epoch"])
    page.add("planned_steps", (run,), snapshot["planned_steps"])
    page.add("variables", (run,), snapshot["variables"])
    _add_values(page, run, snapshot)
    _add_counters(page, run, snapshot["counters"])
    for sink, count in snapshot["dropped"].items():
        page.add("events_dropped_total", (run, sink), count)
    for sink, count in snapshot["errors"].items():
        page.add("sink_errors_total", (run, sink), count)
    durations = snapshot["step_duration"]
    page.add_histogram("step_duration_seconds", rank, durations)
    norms = snapshot["step_gradient_norm"]
    page.add_histogram("step_gradient_norm", (run,), norms)


def _add_values(page: Page, run: str, snapshot: Snapshot) -> None:
    for signal, _, value in snapshot["values"]:
        if signal in _LOSSES:
            page.add("loss", (run, _LOSSES[signal]), value)
        elif generic_scope(signal) == "run":
            page.add(signal_family(signal), (run,), value)
    for name in ("mean", "noise"):
        if name in snapshot["loss_window"]:
            value = snapshot["loss_window"][name]
            page.add(f"loss_window_{name}", (run, "train"), value)


def _add_counters(page: Page, run: str, counters: Mapping[str, Any]) -> None:
    for reason, count in counters["skipped_steps"].items():
        page.add("skipped_steps_total", (run, reason), count)
    page.add("clipped_steps_total", (run,), counters["clipped_steps"])
    last = counters["last_nonfinite_time"]
    page.add("last_nonfinite_timestamp_seconds", (run,), last)
    page.add("last_nonfinite_step", (run,), counters["last_nonfinite_step"])
    events = {(source, kind): 0 for source in _SOURCES for kind in _KINDS}
    events |= {(s, k): n for s, k, n in counters["nonfinite"]}
    for labels, count in events.items():
        page.add("nonfinite_events_total", (run, *labels), count)
    for *labels, count in counters["findings"]:
        page.add("findings_total", (run, *labels), count)
    for *labels, seconds in counters["finding_times"]:
        page.add("finding_last_timestamp_seconds", (run, *labels), seconds)


def _add_subjects(page: Page, snapshot: Snapshot) -> None:
    """Adds what has a variable, layer, component or metric as label."""
    run = _id(snapshot)
    labels = _subject_labels(snapshot)
    for signal, subject, value in snapshot["values"]:
        kind = _subject_kind(signal)
        if signal not in SIGNALS:
            page.drop((run,), "unknown")
        elif kind and subject not in labels[kind]:
            page.drop((run,), "subjects")
        elif kind == "metric":
            split = _METRICS[signal]
            page.add("metric_value", (run, split, labels[kind][subject]), value)
        elif kind:
            name = signal_family(signal)
            page.add(name, (run, labels[kind][subject]), value)
    page.add("variables_exported", (run,), len(labels["variable"]))
    _add_variable_events(page, run, snapshot, labels["variable"])


def _subject_kind(signal: str) -> str | None:
    """Returns a key of `MAX_SUBJECTS`; `None` if it has no such label."""
    kind = "metric" if signal in _METRICS else generic_scope(signal)
    return kind if kind in MAX_SUBJECTS else None


def _subject_labels(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """Returns kind -> subject -> label value, chosen in the Schema's order."""
    subjects: dict[str, list[str]] = {kind: [] for kind in MAX_SUBJECTS}
    for signal, subject, _ in snapshot["values"]:
        if kind := _subject_kind(signal):
            subjects[kind].append(subject)
    events = snapshot["counters"]["variable_nonfinite"]
    subjects["variable"] += [path for path, _ in events]
    return {
        kind: unique_labels(subjects[kind], limit)
        for kind, limit in MAX_SUBJECTS.items()
    }


def _add_variable_events(
    page: Page, run: str, snapshot: Snapshot, labels: Mapping[str, str]
) -> None:
    """Adds the counter of each exported variable and one for the rest."""
    events = dict.fromkeys(labels.values(), 0)
    for path, count in snapshot["counters"]["variable_nonfinite"]:
        label = labels.get(path, _OTHER)
        events[label] = events.get(label, 0) + count
    for label, count in events.items():
        page.add("variable_nonfinite_events_total", (run, label), count)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A page that is being served from this process.

    Attributes:
        url: where, with the real port.
        close: stops serving and frees the port; may be called twice.
    """

    url: str
    close: Callable[[], None]


def serve_metrics(collector: RunCollector, port: int) -> Endpoint:
    """Serves a collector on 127.0.0.1 in a thread of this process.

    Args:
        collector: gets a registry of its own.
        port: TCP port; 0 = a free one.

    Raises:
        OSError: the port is taken or must not be used.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    server, thread = start_http_server(port, "127.0.0.1", registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return Endpoint(f"http://127.0.0.1:{server.server_port}/metrics", close)
