from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.registry import Collector

from gradwatch.exposition import LABEL_LENGTH, Page, clean, unique_labels
from gradwatch.families import Family, families

# prometheus_client 0.26 has no types for these two.
encode: Callable[[Collector], bytes] = exposition.generate_latest
parse: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families

CATALOGUE = {
    "value": Family("gradwatch_value", "gauge", ("run", "name"), "A value."),
    "events_total": Family("gradwatch_events_total", "counter", ("run",), "."),
    "time": Family("gradwatch_time", "histogram", ("run",), "A time."),
}
COUNTS = {"edges": [0.1, 1.0], "counts": [1, 0, 2], "sum": 7.5}


class Pages(Collector):
    """Lets encoders read a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def collect(self) -> Iterable[Metric]:
        """Returns the page's families."""
        return self.page.metrics()


def samples(page: Page) -> dict[tuple[Any, ...], float]:
    """Returns (sample name, label values) -> value of what parsers read."""
    text = encode(Pages(page)).decode()
    found = [s for metric in parse(text) for s in metric.samples]
    values = {
        (
            s.name,
            *(s.labels[n] for n in ("run", "name", "le") if n in s.labels),
        ): s.value
        for s in found
    }
    assert len(values) == len(found)
    return values


def test_names_that_collide_get_a_number() -> None:
    """Control characters go, long names are cut, and both stay apart."""
    long = "x" * 250
    subjects = ["a/b", "a/\x00b", "a/b\n", "a/b", long, long + "y", "ü \ud800"]
    labels = unique_labels(subjects, 10)
    assert list(labels.values()) == [
        "a/b",
        "a/b~2",
        "a/b~3",
        "x" * 200,
        "x" * 198 + "~2",
        "ü ",
    ]
    assert unique_labels(subjects, 1) == {"a/b": "a/b"}
    assert len(clean(long)) == LABEL_LENGTH


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=()), max_size=4), max_size=8
    )
)
def test_no_name_breaks_a_page(names: list[str]) -> None:
    """Any names give a page without duplicates that a strict parser reads."""
    page = Page(CATALOGUE, 100)
    for name in names:
        page.add("value", ("run", name), 1.0)
    assert len(samples(page)) == len(set(map(clean, names)))
    assert page.dropped["run", "collision"] == len(names) - len(samples(page))


def test_gauges_tell_all_and_counters_stay_finite() -> None:
    """Text of JSON becomes a number; what may not be a number is left out."""
    page = Page(CATALOGUE, 100)
    page.add("value", ("run", "low"), "-Infinity")
    page.add("value", ("run", "nan"), "NaN")
    page.add("events_total", ("run",), "NaN")
    page.add_histogram("time", ("run",), {**COUNTS, "sum": math.inf})
    found = samples(page)
    assert found["gradwatch_value", "run", "low"] == -math.inf
    assert math.isnan(found["gradwatch_value", "run", "nan"])
    assert len(found) == 2
    assert page.dropped == {("run", "nonfinite"): 1 + 5}


def test_a_histogram_is_there_as_a_whole_or_not() -> None:
    """The limit never cuts a histogram in two."""
    page = Page(CATALOGUE, 9)
    page.add_histogram("time", ("one",), COUNTS)
    page.add_histogram("time", ("two",), COUNTS)
    found = samples(page)
    assert len(found) == 5
    assert found["gradwatch_time_bucket", "one", "1.0"] == 1
    assert found["gradwatch_time_bucket", "one", "+Inf"] == 3
    assert found["gradwatch_time_count", "one"] == 3
    assert page.dropped == {("two", "series"): 5}
    page.allow(1)
    page.add_histogram("time", ("two",), COUNTS)
    assert len(samples(page)) == 10


def test_the_catalogue_follows_the_conventions() -> None:
    """Names say prefix and type; `run` comes first; help is a sentence."""
    for short, family in families().items():
        assert family.name == f"gradwatch_{short}"
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.name.endswith("_info") == (family.kind == "info")
        assert family.meaning.endswith(".")
        assert "run" not in family.labels[1:]
        assert not {"job", "instance", "le", "type"} & set(family.labels)
