"""Findings as log lines."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gradwatch.records import Beat, Finding, Run, Schema, Severity
from gradwatch.sinks.log import LogSink

RUN = Run("run-1", "run", 1000.0, "host", {}, {})


def finding(severity: Severity) -> Finding:
    """Returns a finding whose message has two lines."""
    return Finding(
        "dead_layer", severity, "dense", 7, 9, {}, (), "It is\ndead.", "Fix it."
    )


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        ("info", logging.INFO),
        ("warning", logging.WARNING),
        ("critical", logging.WARNING),
    ],
)
def test_a_finding_is_one_line(
    caplog: pytest.LogCaptureFixture, severity: Severity, level: int
) -> None:
    """A finding is one line that says rule, severity, subject and step."""
    caplog.set_level(logging.INFO, "gradwatch")
    LogSink().write(finding(severity))
    (record,) = caplog.records
    assert record.name == "gradwatch"
    assert record.levelno == level
    assert record.getMessage() == (
        f"dead_layer ({severity}) dense at step 7: It is dead. Fix it."
    )


def test_a_run_is_announced_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The directory is logged once, not again on a new Schema or fit."""
    caplog.set_level(logging.INFO, "gradwatch")
    sink = LogSink(tmp_path)
    for _ in range(2):
        sink.open(RUN, Schema())
        sink.close()
    sink.write(Beat(1.0, "running", 1, 2.0))
    assert [r.getMessage() for r in caplog.records] == [
        f"Watching this run: {tmp_path}"
    ]


def test_without_a_path_the_run_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a path the line has the run's id."""
    caplog.set_level(logging.INFO, "gradwatch")
    LogSink().open(RUN, Schema())
    assert caplog.messages == ["Watching this run: run-1"]
