from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.registry import Collector

from gradwatch.exposition import Page
from gradwatch.families import Family, families
from gradwatch.sheets import LABEL_LENGTH, Sheet, clean, unique_labels

# prometheus_client 0.26 has no types for these two.
encode: Callable[[Collector], bytes] = exposition.generate_latest
parse: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families

CATALOGUE = {
    "value": Family("gradwatch_value", "gauge", ("run", "name"), "A value."),
    "events_total": Family("gradwatch_events_total", "counter", ("run",), "."),
    "time": Family("gradwatch_time", "histogram", ("run",), "A time."),
    "about_info": Family("gradwatch_about_info", "info", ("run", "a"), "."),
    "alone": Family("gradwatch_alone", "gauge", (), '\\ A \n " help.'),
}
COUNTS = {"edges": [0.1, 1.0], "counts": [1, 0, 2], "sum": 7.5}


def page_of(sheet: Sheet, limit: int = 100) -> Page:
    """Returns a page that has taken one sheet of the run `run`."""
    page = Page(CATALOGUE, limit)
    page.take(sheet, "run")
    return page


def samples(page: Page) -> dict[tuple[Any, ...], float]:
    """Returns (sample name, label values) -> value of what parsers read."""
    text = page.text(encode).decode()
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
    sheet = Sheet(CATALOGUE)
    for name in names:
        sheet.add("value", ("run", name), 1.0)
    page = page_of(sheet)
    assert len(samples(page)) == len(set(map(clean, names)))
    assert page.dropped["run", "collision"] == len(names) - len(samples(page))


def test_gauges_tell_all_and_counters_stay_finite() -> None:
    """Text of JSON becomes a number; what may not be a number is left out."""
    sheet = Sheet(CATALOGUE)
    sheet.add("value", ("run", "low"), "-Infinity")
    sheet.add("value", ("run", "nan"), "NaN")
    sheet.add("events_total", ("run",), "NaN")
    sheet.add_histogram("time", ("run",), {**COUNTS, "sum": math.inf})
    page = page_of(sheet)
    found = samples(page)
    assert found["gradwatch_value", "run", "low"] == -math.inf
    assert math.isnan(found["gradwatch_value", "run", "nan"])
    assert len(found) == 2
    assert page.dropped == {("run", "nonfinite"): 1 + 5}


def test_a_histogram_is_there_as_a_whole_or_not() -> None:
    """The limit never cuts a histogram in two; smaller rows fill the page."""
    sheet = Sheet(CATALOGUE)
    sheet.add_histogram("time", ("one",), COUNTS)
    sheet.add_histogram("time", ("two",), COUNTS)
    for i in range(6):
        sheet.add("value", ("run", str(i)), i)
    page = page_of(sheet, 9)
    found = samples(page)
    assert len(found) == 9
    assert found["gradwatch_time_bucket", "one", "1.0"] == 1
    assert found["gradwatch_time_bucket", "one", "+Inf"] == 3
    assert found["gradwatch_time_count", "one"] == 3
    assert page.dropped == {("run", "series"): 5 + 2}
    page.allow(5)
    more = Sheet(CATALOGUE)
    more.add_histogram("time", ("two",), COUNTS)
    page.take(more, "run")
    assert len(samples(page)) == 14


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_text_is_what_the_client_library_writes(accept: str) -> None:
    """The kept lines are byte for byte those of prometheus_client."""
    sheet = Sheet(CATALOGUE)
    values = (0, 1e-30, 12345678.9, 1e21, math.inf, -math.inf, math.nan, True)
    for i, value in enumerate(values):
        sheet.add("value", (f'a\\b"c{i}', "ü\n{}%s"), value)
    sheet.add("events_total", ("run",), 3)
    sheet.add_histogram("time", ("run",), COUNTS)
    sheet.add("about_info", ("run", "x"), 1)
    sheet.add("alone", (), 2.5)
    page = page_of(sheet)

    class Metrics(Collector):
        def collect(self) -> Iterable[Metric]:
            return page.metrics()

    encode, _ = choose_encoder(accept)
    assert page.text(encode) == encode(Metrics())


def test_the_catalogue_follows_the_conventions() -> None:
    """Names say prefix and type; `run` comes first; help is a sentence."""
    for short, family in families().items():
        assert family.name == f"gradwatch_{short}"
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.name.endswith("_info") == (family.kind == "info")
        assert family.meaning.endswith(".")
        assert "run" not in family.labels[1:]
        assert not {"job", "instance", "le", "type"} & set(family.labels)
