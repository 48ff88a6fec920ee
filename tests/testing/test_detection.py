"""What counts as found, and what as a false alarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gradwatch.records import Anatomy, Block, Finding, Schema, Severity
from gradwatch.replay import Opened
from gradwatch.testing.detection import Verdict, half, judged, table
from gradwatch.testing.recording import Recording
from gradwatch.testing.scenario import Scenario
from gradwatch.testing.zoo import SCENARIOS


def _scenario(name: str, rule: str = "", severity: Severity = "warning") -> Any:
    def build() -> Any:
        raise AssertionError("nothing is trained here")

    fixed = build if rule else None
    also = ("stalled_loss",) if rule else ()
    subject = "hidden" if rule else ""
    return Scenario(
        name, "Made up.", build, rule, severity, subject, also, fixed
    )


def _finding(rule: str, severity: Severity, subject: str, step: int) -> Finding:
    return Finding(rule, severity, subject, 0, step, {}, (), "", "")


DEAD = _scenario("dead", "dead_units")
SLOW = _scenario("slow", "slow_loss", "info")
FINE = _scenario("fine")


@pytest.mark.parametrize(
    ("scenario", "found", "named", "placed"),
    [
        (DEAD, [("dead_units", "warning", "net/hidden_1")], True, True),
        (DEAD, [("dead_units", "info", "net/hidden_1")], False, True),
        (DEAD, [("stalled_loss", "warning", "")], True, False),
        (DEAD, [("loss_spike", "critical", "net/hidden")], False, False),
        (SLOW, [("slow_loss", "info", "")], True, False),
        (DEAD, [], False, False),
    ],
)
def test_a_fault_is_named_and_placed(
    scenario: Scenario, found: Any, named: bool, placed: bool
) -> None:
    """By its rule or one that is as right, severe enough, at its place."""
    told = tuple(_finding(rule, sev, at, 9) for rule, sev, at in found)
    verdict = Verdict(scenario, 0, told)
    assert (verdict.right is not None) == named
    assert verdict.culprit == placed


def test_the_table_counts() -> None:
    """Runs, hits, places, the median step, false alarms in both halves."""
    verdicts = [
        Verdict(DEAD, 0, (_finding("dead_units", "warning", "hidden", 30),)),
        Verdict(DEAD, 1, (_finding("dead_units", "warning", "out", 50),)),
        Verdict(DEAD, 2, ()),
        Verdict(FINE, 0, (_finding("dead_units", "info", "", 7),)),
        Verdict(FINE, 1, (_finding("dead_units", "warning", "", 7),)),
        Verdict(FINE, 2, (_finding("dead_units", "warning", "", 7),), False),
        Verdict(FINE, 0, (), unit=1e6),
    ]
    text = table(verdicts)
    assert "| `dead_units` | 3 | 2 | 1 of 3 | 50 |" in text
    assert "| healthy, all | 2 | 1 falsely |  |  |" in text
    mine = "first half" if half("fine") == 0 else "second half"
    assert f"| healthy, {mine} | 2 | 1 falsely |  |  |" in text
    assert "| healthy, loss times 1e+06 | 1 | 0 falsely |  |  |" in text
    assert "| meant to be healthy, did not learn | 1 | 1 told |  |  |" in text


@pytest.mark.parametrize(
    ("scenario", "quality", "learned"),
    [(FINE, 0.5, True), (FINE, 0.4, False), (DEAD, 0.0, True)],
)
def test_a_healthy_run_is_one_that_learns(
    scenario: Scenario, quality: float, learned: bool
) -> None:
    """By the quality that the scenario states, seed by seed."""
    recording = Recording("run", 3, quality, 1.0, 1.0, "", ())
    assert judged(scenario, recording, list).learned == learned


def test_halves_are_halves() -> None:
    """Neither is much larger than the other, and names decide."""
    share = sum(half(s.name) for s in SCENARIOS) / len(SCENARIOS)
    assert 0.4 < share < 0.6


class _Once:
    """Warns at each Block."""

    name = "dead_units"
    severity: Severity = "warning"
    needs = ()
    meaning = "Made up."
    advice = "None."

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""

    def check(self, record: Any) -> Iterator[Finding]:
        """See `Rule`."""
        yield _finding("dead_units", "warning", "hidden", 5)


def test_recordings_are_judged_by_new_rules() -> None:
    """Each run by rules of its own; later symptoms are folded."""
    received = (Opened(Anatomy(), Schema()), Block.empty(0), Block.empty(0))
    recording = Recording("dead", 3, 0.0, 1.0, 1.0, "", received)
    made: list[Any] = []

    def rules() -> Sequence[Any]:
        made.append(_Once())
        return made[-1:]

    for _ in range(2):
        verdict = judged(DEAD, recording, rules)
        assert (verdict.seed, len(verdict.findings)) == (3, 1)
    assert len(made) == 2
