"""The zoo is well-formed, and its labels are true."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import get_args

import pytest

from gradwatch import default_rules
from gradwatch.records import Severity
from gradwatch.testing.detection import Verdict, judged
from gradwatch.testing.measure import measure
from gradwatch.testing.recording import Recording
from gradwatch.testing.scenario import RULES, Scenario
from gradwatch.testing.zoo import FAULTY, HEALTHY, SCENARIOS

_SHARE = 10
_NO_FAULT = {"no_readings", "lost_readings", "too_many_skips", "rolled_back"}


def _chosen(scenarios: tuple[Scenario, ...]) -> list[Scenario]:
    """A fixed tenth of the scenarios, whatever else there is."""

    def number(scenario: Scenario) -> int:
        return int(hashlib.sha256(scenario.name.encode()).hexdigest(), 16)

    return [s for s in scenarios if number(s) % _SHARE == 0]


def _by_name(scenario: Scenario) -> str:
    return scenario.name


def test_there_are_enough_of_each() -> None:
    """At least 40 faulty and 40 healthy programs, each name once."""
    assert len(FAULTY) >= 40
    assert len(HEALTHY) >= 40
    names = Counter(s.name for s in (*SCENARIOS, *(s.twin() for s in FAULTY)))
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=_by_name)
def test_is_well_formed(scenario: Scenario) -> None:
    """Its words are known; a faulty one has a twin, a healthy one has none."""
    assert scenario.name.isidentifier()
    assert scenario.name == scenario.name.lower()
    assert scenario.meaning.endswith((".", "?"))
    assert scenario.severity in get_args(Severity)
    faulty = scenario in FAULTY
    assert bool(scenario.rule) == bool(scenario.fixed) == faulty
    if faulty:
        assert {scenario.rule, *scenario.also} <= set(RULES)
        assert scenario.rule not in scenario.also
        assert scenario.twin().rule == ""
    else:
        assert (scenario.subject, scenario.also, scenario.within) == ("", (), 0)
        with pytest.raises(ValueError, match="has no twin"):
            scenario.twin()


def test_rules_are_those_of_the_package() -> None:
    """All rules about training can be a label, under the same name."""
    assert {rule.name for rule in default_rules()} - _NO_FAULT <= set(RULES)


def _run(scenario: Scenario) -> tuple[Recording, Verdict]:
    """Trains it under X-rays, and judges it."""
    recording = measure(scenario)
    return recording, judged(scenario, recording, default_rules)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("scenario", _chosen(FAULTY), ids=_by_name)
def test_a_fault_costs_and_is_named_and_its_fixed_twin_learns(
    scenario: Scenario,
) -> None:
    """The label holds, a finding tells it, and the twin makes no warning."""
    faulty, said = _run(scenario)
    twin, of_twin = _run(scenario.twin())
    assert scenario.holds(faulty.quality, faulty.error, twin.quality)
    assert twin.error == ""
    assert said.right is not None, said.findings
    assert said.culprit
    assert of_twin.serious == []


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("scenario", _chosen(HEALTHY), ids=_by_name)
def test_healthy_learns_and_is_left_alone(scenario: Scenario) -> None:
    """What is called healthy learns what can be learned, without a warning."""
    recording, said = _run(scenario)
    assert scenario.holds(recording.quality, recording.error)
    assert said.serious == []
