"""A page of Prometheus families that is filled once and then read.

Guarantees: no series twice, no label value that could break a scrape, no
counter that is not finite, never more series than allowed; whatever is left
out is counted. Must not import keras, tensorflow, the trainer's side or the
service.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from gradwatch.families import Family, Kind

__all__ = [
    "DROP_REASONS",
    "LABEL_LENGTH",
    "Page",
    "clean",
    "empty_family",
    "unique_labels",
]

LABEL_LENGTH = 200
"""Characters that a label value may have."""

DROP_REASONS = ("subjects", "series", "collision", "nonfinite", "unknown")
"""Why a series is missing: too many subjects of one kind in its run, too many
series on the page, its label set was taken, a counter that is not finite, a
signal that this version does not know."""


def clean(value: object) -> str:
    """Returns a label value: no unprintable characters, at most 200 long.

    Control characters would pass raw, and a lone surrogate cannot be encoded:
    one variable's name would make the whole scrape fail.
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text[:LABEL_LENGTH]


def unique_labels(subjects: Iterable[str], limit: int) -> dict[str, str]:
    """Returns subject -> label value, unique, for the first `limit` subjects.

    Args:
        subjects: paths or names; repeated ones count once.
        limit: number of subjects that get a label.
    """
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for subject in dict.fromkeys(subjects):
        if len(labels) == limit:
            break
        label, number = clean(subject), 1
        while label in taken:
            number += 1
            suffix = f"~{number}"
            label = clean(subject)[: LABEL_LENGTH - len(suffix)] + suffix
        taken.add(label)
        labels[subject] = label
    return labels


class Page:
    """What one collection exposes; filled once, then read.

    Args:
        catalogue: the families by short name, as `families` returns them.
        limit: series that may be added.
    """

    def __init__(self, catalogue: Mapping[str, Family], limit: int) -> None:
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._catalogue = catalogue
        self._limit = limit
        self._series = 0
        self._seen: set[tuple[str, ...]] = set()
        self._metrics: dict[str, Metric] = {}

    def add(self, name: str, labels: Sequence[object], value: object) -> None:
        """Adds one sample.

        Args:
            name: short name of a gauge, counter or info family.
            labels: label values in the family's order.
            value: a number, or `"NaN"`, `"Infinity"`, `"-Infinity"`; an info
                is always 1.
        """
        number = float(value)  # type: ignore[arg-type]
        counter = self._catalogue[name].kind == "counter"
        if counter and not math.isfinite(number):
            self.drop(labels, "nonfinite")
        elif (values := self._claim(name, labels, 1)) is not None:
            metric = self._metric(name)
            if isinstance(metric, InfoMetricFamily):
                metric.add_metric(values, {})
            elif isinstance(metric, GaugeMetricFamily | CounterMetricFamily):
                metric.add_metric(values, number)

    def add_histogram(
        self, name: str, labels: Sequence[object], counts: Mapping[str, Any]
    ) -> None:
        """Adds one histogram, all of it or nothing.

        Args:
            name: short name of a histogram family.
            labels: label values in the family's order.
            counts: as `runstate.Distribution.plain` returns them.
        """
        edges = [*map(float, counts["edges"]), math.inf]
        total = float(counts["sum"])
        series = len(edges) + 2
        if not math.isfinite(total):
            self.drop(labels, "nonfinite", series)
        elif values := self._claim(name, labels, series):
            metric = self._metric(name)
            names = [*map(repr, edges[:-1]), "+Inf"]
            buckets = list(zip(names, accumulate(counts["counts"])))
            if isinstance(metric, HistogramMetricFamily):
                metric.add_metric(values, buckets, total)

    def drop(
        self, labels: Sequence[object], reason: str, series: int = 1
    ) -> None:
        """Counts series that are left out, under their run's name."""
        self.dropped[clean(labels[0]) if labels else "", reason] += series

    def metrics(self) -> list[Metric]:
        """Returns the families that have samples, in the catalogue's order."""
        return [self._metrics[n] for n in self._catalogue if n in self._metrics]

    def allow(self, series: int) -> None:
        """Lets `series` more in than before."""
        self._limit += series

    def _claim(
        self, name: str, labels: Sequence[object], series: int
    ) -> list[str] | None:
        values = [clean(value) for value in labels]
        if (name, *values) in self._seen:
            self.drop(labels, "collision", series)
            return None
        if self._series + series > self._limit:
            self.drop(labels, "series", series)
            return None
        self._seen.add((name, *values))
        self._series += series
        return values

    def _metric(self, name: str) -> Metric:
        if name not in self._metrics:
            self._metrics[name] = empty_family(self._catalogue[name])
        return self._metrics[name]


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
