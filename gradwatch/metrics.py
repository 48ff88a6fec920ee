"""What Prometheus is told about runs, and the endpoint of one process.

Must not import keras, tensorflow, the trainer's side or the service.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gradwatch.exports import CHIEF, exports
from gradwatch.exposition import DROP_REASONS, Page, empty_family
from gradwatch.families import families
from gradwatch.runstate import Snapshot
from gradwatch.sheets import Sheet

__all__ = [
    "HEALTHS",
    "MAX_SERIES",
    "Endpoint",
    "RunCollector",
    "installed_version",
    "serve_metrics",
]

HEALTHS = ("ok", "stalled", "lost")
"""What the service can say about a run that the trainer cannot; last, worst."""

MAX_SERIES = 20_000
"""Of one page: Prometheus' own `sample_limit` would fail the whole scrape."""

# (run, rank) -> its snapshot and what is exported of it.
_Found = dict[tuple[str, str], tuple[Snapshot, tuple[Sheet, Sheet]]]


class RunCollector(Collector):
    """Collects the families of some runs; state lives elsewhere.

    Args:
        snapshots: called at every collection; the runs, the most important
            first: where a limit cuts, it cuts the last ones. Of one that is
            the same object as before, the sheets of before are used.
        source_errors: called after `snapshots`; reason -> unreadable run
            directories so far. `None` where nothing is read.
        health: snapshot -> one of `HEALTHS`. `None` in the training process,
            which cannot tell that it was killed.
        room: folder with run directories -> bytes that are free there. `None`
            where nothing is read.
        max_series: series on one page; what is beyond is counted.
    """

    def __init__(
        self,
        snapshots: Callable[[], Iterable[Snapshot]],
        source_errors: Callable[[], Mapping[str, int]] | None = None,
        *,
        health: Callable[[Snapshot], str] | None = None,
        room: Callable[[], Mapping[str, int]] | None = None,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._snapshots = snapshots
        self._source_errors = source_errors
        self._health = health
        self._room = room
        self._max_series = max_series
        self._catalogue = families()
        self._exported: _Found = {}
        self._dropped: dict[tuple[str, str], int] = {}
        packages = map(installed_version, ("gradwatch", "keras"))
        self._versions = (*packages, platform.python_version())

    def describe(self) -> Iterator[Metric]:
        """Yields all families without samples, for the registry's names."""
        yield from map(empty_family, self._catalogue.values())

    def collect(self) -> Iterator[Metric]:
        """Yields the families of the runs that exist now."""
        yield from self.page().metrics()

    def page(self) -> Page:
        """Returns what there is to say about the runs that exist now."""
        began = time.perf_counter()
        snapshots = list(self._snapshots())
        found, doubles = self._find(snapshots)
        runs = list(dict.fromkeys(run for run, _ in found))
        reserved = len(DROP_REASONS) * len(runs) + 1
        page = Page(self._catalogue, self._max_series - reserved)
        page.take(self._about(found))
        # What a run cannot do without comes first: the limit cuts the rest.
        for part in 0, 1:
            for (run, _), (_, parts) in found.items():
                page.take(parts[part], run)
        page.dropped += doubles
        page.allow(reserved)
        page.take(self._left_out(page, runs, began))
        return page

    def _find(
        self, snapshots: Iterable[Snapshot]
    ) -> tuple[_Found, Counter[tuple[str, str]]]:
        """Returns what there is of each rank, and the series of doubles."""
        found: _Found = {}
        doubles: Counter[tuple[str, str]] = Counter()
        for snapshot in snapshots:
            run = snapshot["run"]["id"]
            key = run, snapshot.get("rank", CHIEF)
            before, parts = self._exported.get(key, (None, None))
            if before is not snapshot or parts is None:
                parts = exports(snapshot, self._catalogue)
            if key in found:
                series = sum(part.series for part in parts)
                doubles[run, "collision"] += series
            else:
                found[key] = snapshot, parts
        self._exported = found
        return found, doubles

    def _about(self, found: _Found) -> Sheet:
        """What the reader of the runs says of them."""
        sheet = Sheet(self._catalogue)
        sheet.add("build_info", self._versions, 1)
        sheet.add("runs", (), len({run for run, _ in found}))
        if self._source_errors:
            for reason, count in self._source_errors().items():
                sheet.add("source_errors_total", (reason,), count)
        if self._room:
            for folder, free in self._room().items():
                sheet.add("logdir_available_bytes", (folder,), free)
        if self._health:
            worst: dict[str, int] = {}
            for (run, _), (snapshot, _) in found.items():
                health = HEALTHS.index(self._health(snapshot))
                worst[run] = max(health, worst.get(run, 0))
            for run, health in worst.items():
                for i, name in enumerate(HEALTHS):
                    sheet.add("run_health", (run, name), i == health)
        return sheet

    def _left_out(self, page: Page, runs: list[str], began: float) -> Sheet:
        """What is not on the page, and what it took; a counter never falls."""
        self._dropped = {
            (run, reason): max(
                page.dropped[run, reason], self._dropped.get((run, reason), 0)
            )
            for run in runs
            for reason in DROP_REASONS
        }
        sheet = Sheet(self._catalogue)
        for labels, count in self._dropped.items():
            sheet.add("series_dropped_total", labels, count)
        took = time.perf_counter() - began
        sheet.add("collect_duration_seconds", (), took)
        return sheet


def installed_version(package: str) -> str:
    """Returns the version of a distribution, `""` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


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
