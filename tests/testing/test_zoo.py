"""The zoo is well-formed, and its labels are true."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import get_args

import pytest

from gradwatch import default_rules
from gradwatch.records import Severity
from gradwatch.testing.measure import train
from gradwatch.testing.scenario import RULES, Scenario
from gradwatch.testing.zoo import FAULTY, HEALTHY, SCENARIOS

_SHARE = 20
_LIVENESS = {"no_readings", "lost_readings"}


def _chosen(scenarios: tuple[Scenario, ...]) -> list[Scenario]:
    """A fixed twentieth of the scenarios, whatever else there is."""

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
    assert {rule.name for rule in default_rules()} - _LIVENESS <= set(RULES)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("scenario", _chosen(FAULTY), ids=_by_name)
def test_fault_costs_and_fixed_twin_learns(scenario: Scenario) -> None:
    """The label holds: the fixed twin learns, and the fault is to blame."""
    quality, _, error = train(scenario)
    twin, _, none = train(scenario.twin())
    assert scenario.holds(quality, error, twin)
    assert none == ""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("scenario", _chosen(HEALTHY), ids=_by_name)
def test_healthy_learns(scenario: Scenario) -> None:
    """What is called healthy learns what can be learned."""
    quality, _, error = train(scenario)
    assert scenario.holds(quality, error)
