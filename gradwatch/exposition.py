"""A page of Prometheus families, put together from sheets.

Guarantees: every family once, in the catalogue's order, and never more series
than allowed; whatever is left out is counted. Must not import keras,
tensorflow, the trainer's side or the service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gradwatch.families import Family, Kind
from gradwatch.sheets import Row, Sheet

__all__ = ["DROP_REASONS", "Page", "empty_family"]

DROP_REASONS = ("subjects", "series", "collision", "nonfinite", "unknown")
"""Why a series is missing: too many subjects of one kind in its run, too many
series on the page, its label set was taken, a counter that is not finite, a
signal that this version does not know."""


class Page:
    """What one collection exposes; put together once, then read.

    Args:
        catalogue: the families by short name, as `families` returns them.
        limit: series that may be added.

    Attributes:
        dropped: run, reason -> series that are left out.
    """

    def __init__(self, catalogue: Mapping[str, Family], limit: int) -> None:
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._catalogue = catalogue
        self._limit = limit
        self._series = 0
        self._sheets: list[Sheet] = []

    def take(self, sheet: Sheet, run: str = "") -> None:
        """Takes a sheet, or as much of it as may be added.

        Args:
            sheet: none of its series is on the page.
            run: whose series they are.
        """
        for reason, count in sheet.dropped.items():
            self.dropped[run, reason] += count
        if self._series + sheet.series > self._limit:
            whole, sheet = sheet, Sheet(self._catalogue)
            for row in whole.rows:
                if self._series + sheet.series + row.series <= self._limit:
                    sheet.keep(row)
            self.dropped[run, "series"] += whole.series - sheet.series
        self._series += sheet.series
        self._sheets.append(sheet)

    def allow(self, series: int) -> None:
        """Lets `series` more in than before."""
        self._limit += series

    def metrics(self) -> list[Metric]:
        """Returns the families that have samples, in the catalogue's order."""
        found: dict[str, Metric] = {}
        for sheet in self._sheets:
            for row in sheet.rows:
                if row.family not in found:
                    family = self._catalogue[row.family]
                    found[row.family] = empty_family(family)
                _add(found[row.family], row)
        return [found[n] for n in self._catalogue if n in found]

    def text(self, encode: Callable[[Collector], bytes]) -> bytes:
        """Returns the page as an encoder of prometheus_client writes it.

        Args:
            encode: as `choose_encoder` returns it; writes what is before and
                after the samples.
        """
        texts: dict[str, list[str]] = {}
        for sheet in self._sheets:
            for name, lines in sheet.lines.items():
                texts.setdefault(name, []).append(lines)
        end = encode(_Families(())).decode()
        page = []
        for name, family in self._catalogue.items():
            if name in texts:
                head = encode(_Families([empty_family(family)])).decode()
                page += [head.removesuffix(end), *texts[name]]
        return "".join([*page, end]).encode()


class _Families(Collector):
    """Some families, for encoders that ask a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _add(metric: Metric, row: Row) -> None:
    if isinstance(metric, InfoMetricFamily):
        metric.add_metric(row.labels, {})
    elif isinstance(metric, HistogramMetricFamily):
        metric.add_metric(row.labels, row.buckets, row.value)
    elif isinstance(metric, GaugeMetricFamily | CounterMetricFamily):
        metric.add_metric(row.labels, row.value)


def empty_family(family: Family) -> Metric:
    """Returns a family without samples."""
    kinds: dict[Kind, Callable[..., Metric]] = {
        "gauge": GaugeMetricFamily,
        "counter": CounterMetricFamily,
        "histogram": HistogramMetricFamily,
        "info": InfoMetricFamily,
    }
    name = family.name.removesuffix("_info")
    return kinds[family.kind](name, family.meaning, labels=family.labels)
