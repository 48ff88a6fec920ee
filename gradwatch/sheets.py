"""A sheet: some series, in order, and their lines on a page.

Guarantees: no series twice, no label value that could break a scrape, no
counter that is not finite; whatever is left out is counted. Must not import
keras, tensorflow, the trainer's side or the service.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client.utils import floatToGoString

from gradwatch.families import Family

__all__ = ["LABEL_LENGTH", "Row", "Sheet", "clean", "unique_labels"]

# prometheus_client 0.26 has no types for it.
_number: Callable[[float], str] = floatToGoString

LABEL_LENGTH = 200
"""Characters that a label value may have."""


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


class Row(NamedTuple):
    """One sample of a family, or one histogram: all of it or nothing.

    Attributes:
        family: its short name.
        labels: label values in the family's order.
        value: of the sample; the sum of a histogram.
        buckets: upper bound, as text, and cumulative count; empty but for
            histograms.
    """

    family: str
    labels: tuple[str, ...]
    value: float
    buckets: tuple[tuple[str, int], ...] = ()

    @property
    def series(self) -> int:
        """How many series it is."""
        return len(self.buckets) + 2 if self.buckets else 1


class Sheet:
    """Series that belong together, the most important first.

    Args:
        catalogue: the families by short name, as `families` returns them.

    Attributes:
        rows: what was added, no label set of a family twice.
        series: how many series that is.
        dropped: reason -> series that are left out.
    """

    def __init__(self, catalogue: Mapping[str, Family]) -> None:
        self.rows: list[Row] = []
        self.series = 0
        self.dropped: Counter[str] = Counter()
        self._catalogue = catalogue
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

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
            self.dropped["nonfinite"] += 1
        else:
            self.keep(Row(name, tuple(map(clean, labels)), number))

    def add_histogram(
        self, name: str, labels: Sequence[object], counts: Mapping[str, Any]
    ) -> None:
        """Adds one histogram.

        Args:
            name: short name of a histogram family.
            labels: label values in the family's order.
            counts: as `runstate.Distribution.plain` returns them.
        """
        names = [*(repr(float(e)) for e in counts["edges"]), "+Inf"]
        buckets = tuple(zip(names, accumulate(counts["counts"])))
        total = float(counts["sum"])
        row = Row(name, tuple(map(clean, labels)), total, buckets)
        if math.isfinite(total):
            self.keep(row)
        else:
            self.dropped["nonfinite"] += row.series

    def keep(self, row: Row) -> None:
        """Adds a row, if its label set is not there yet."""
        key = row[:2]
        if key in self._seen:
            self.dropped["collision"] += row.series
            return
        self._seen.add(key)
        self.rows.append(row)
        self.series += row.series

    def close(self) -> None:
        """Frees what only `keep` needs: nothing is to be added any more."""
        self._seen.clear()

    @cached_property
    def lines(self) -> Mapping[str, str]:
        """Short name of a family -> the lines of its samples, as on a page.

        Read when nothing is to be added any more.
        """
        rows: dict[str, list[Row]] = {}
        for row in self.rows:
            rows.setdefault(row.family, []).append(row)
        return {
            name: "".join(_lines(self._catalogue[name], of_family))
            for name, of_family in rows.items()
        }


def _lines(family: Family, rows: Iterable[Row]) -> Iterator[str]:
    """Yields what both text formats say of rows, word for word."""
    order = sorted(range(len(family.labels)), key=family.labels.__getitem__)
    named = ",".join(f'{family.labels[i]}="%s"' for i in order)
    line = f"{family.name}{{{named}}} %s\n" if named else f"{family.name} %s\n"
    for row in rows:
        values = [_escaped(row.labels[i]) for i in order]
        if row.buckets:
            yield _histogram(family, row)
        else:
            yield line % (*values, _number(row.value))


def _histogram(family: Family, row: Row) -> str:
    labels = dict(zip(family.labels, map(_escaped, row.labels)))
    return "".join(
        f"{family.name}{suffix}{_braced({**labels, **more})} {_number(value)}\n"
        for suffix, more, value in (
            *(("_bucket", {"le": le}, count) for le, count in row.buckets),
            ("_count", {}, row.buckets[-1][1]),
            ("_sum", {}, row.value),
        )
    )


def _escaped(value: str) -> str:
    # A clean value has no line breaks.
    return value.replace("\\", r"\\").replace('"', r"\"")


def _braced(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{n}="{labels[n]}"' for n in sorted(labels)) + "}"
