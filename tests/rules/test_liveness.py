"""No empty chart without a word."""

from __future__ import annotations

import numpy as np

from gradwatch.records import Anatomy, Beat, Block, Finding, Phase, Schema
from gradwatch.rules.liveness import LostReadings, NoReadings

BLOCK = Block(
    np.arange(4),
    np.arange(4.0),
    np.zeros((4, 1), np.float32),
    np.zeros(4, bool),
)


def _beat(executions: int, phase: Phase = "running") -> Beat:
    return Beat(0.0, phase, executions, 15.0)


def _judge(*records: Beat | Block) -> list[Finding]:
    rule = NoReadings()
    rule.begin(Anatomy(), Schema())
    return [finding for record in records for finding in rule.check(record)]


def test_nothing_from_the_start() -> None:
    """Three executions without any reading are a finding, two are not."""
    assert _judge(_beat(1), _beat(2)) == []
    (finding,) = _judge(_beat(2), _beat(3), _beat(400))
    assert finding.evidence == {"executions_without_reading": 3}


def test_a_short_run_without_readings() -> None:
    """A run that ends after one execution without a reading is told, too."""
    assert len(_judge(_beat(1), _beat(1, "finished"))) == 1
    assert _judge(_beat(0, "finished")) == []
    assert _judge(BLOCK, _beat(1, "finished")) == []


def test_readings_that_stop() -> None:
    """Blindness in the middle of a run is told, at its step."""
    (finding,) = _judge(BLOCK, _beat(4), _beat(6), _beat(7), _beat(90))
    assert finding.first_step == 4


def test_healthy_runs_are_silent() -> None:
    """Readings between beats, long pauses and evaluations are healthy."""
    assert (
        _judge(_beat(0), BLOCK, _beat(9), BLOCK, _beat(900), _beat(900)) == []
    )
    assert _judge(BLOCK, _beat(5), *[_beat(6, "evaluating")] * 9) == []


def test_lost_readings_are_told_once_a_sink() -> None:
    """The first drop of each sink is a finding, more are only counted."""
    rule = LostReadings()
    found = [
        f.subject
        for dropped in ({"a": 0}, {"a": 3}, {"a": 9}, {"a": 9, "b": 1})
        for f in rule.check(Beat(0.0, "running", 1, 1.0, "", dropped))
    ]
    assert found == ["a", "b"]
