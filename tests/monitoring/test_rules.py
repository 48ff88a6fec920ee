"""The alert rules, as Prometheus reads and tests them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradwatch import default_rules
from gradwatch.families import families
from gradwatch.monitoring.alerts import alert_groups, alerts, recorded
from gradwatch.monitoring.cases import cases
from gradwatch.monitoring.files import files
from gradwatch.monitoring.thresholds import Settings

ALERTS = {alert.name: alert for alert in alerts(Settings())}
RULES = [
    rule
    for groups in (recorded(Settings()), alert_groups(Settings()))
    for group in groups["groups"]
    for rule in group["rules"]
]
NAMED = {rule.get("alert", rule.get("record")): rule for rule in RULES}

_CHECK = ("check", "rules", "--lint=all", "--lint-fatal")
_METRIC = re.compile(r"\b(up|[a-z_]*:?gradwatch_[a-z_0-9:]+)(\{[^}]*\})?")
_SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.M | re.S)

# Not in Prometheus 2.42, or not in 3.x any more.
NOT_EVERYWHERE = (
    "holt_winters",
    "double_exponential_smoothing",
    "mad_over_time",
    "sort_by_label",
    "limitk",
    "info(",
    "ts_of_",
    "first_over_time",
    "fill(",
    "histogram_quantiles",
    "anchored",
    "smoothed",
)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"time_scale": 1 / 120},
        {"values": {"lost_seconds": 0.5, "diverging_factor": 1.5}},
    ],
)
def test_promtool_accepts_the_rules(
    built: Callable[..., Path],
    tool: Callable[..., Any],
    settings: dict[str, Any],
) -> None:
    """Its linter has nothing to say, whatever the numbers."""
    folder = built(**settings) / "prometheus"
    for name in ("recording.yml", "alerts.yml"):
        done = tool("promtool", *_CHECK, folder / name)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_alone(
    built: Callable[..., Path], tool: Callable[..., Any]
) -> None:
    """The unit tests hold: at its time, with NaN, over a restart, at an end."""
    done = tool("promtool", "test", "rules", built() / "prometheus/tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "fails"),
    [
        ("> 45 < 86400", "> 75 < 86400", "kill -9"),
        ("for: 2m", "for: 90s", "a step that does not end"),
        ("keep_firing_for: 1m", "keep_firing_for: 0s", "over a restart"),
    ],
)
def test_the_unit_tests_see_changes(
    built: Callable[..., Path],
    tool: Callable[..., Any],
    old: str,
    new: str,
    fails: str,
) -> None:
    """Rules with other numbers do not pass those that are about them."""
    folder = built() / "prometheus"
    rules = (folder / "alerts.yml").read_text()
    assert old in rules
    (folder / "alerts.yml").write_text(rules.replace(old, new))
    tests = yaml.safe_load((folder / "tests.yml").read_text())
    tests["tests"] = [t for t in tests["tests"] if fails in t["name"]][:3]
    (folder / "tests.yml").write_text(yaml.safe_dump(tests))
    done = tool("promtool", "test", "rules", folder / "tests.yml")
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """Nothing is shipped that was never seen firing."""
    assert {case.alert for case in cases()} == set(ALERTS) - {"Watchdog"}


def test_every_critical_rule_has_its_alert() -> None:
    """Others share one: two alerts of a rule would tell one fault twice."""
    for rule in default_rules():
        name = f"Gradwatch{type(rule).__name__}"
        if rule.severity == "critical":
            assert ALERTS[name].severity == "critical"
            assert rule.meaning in ALERTS[name].said
        elif name in ALERTS:
            excluded = ALERTS["GradwatchWarning"].expr.partition("rule!~")[2]
            assert rule.name in excluded.partition("}")[0]


@pytest.mark.parametrize("name", NAMED)
def test_every_selector_names_the_job_and_what_exists(name: str) -> None:
    """Metrics and labels are in the catalogue, or recorded here."""
    known = {family.name: family for family in families().values()}
    expr = NAMED[name]["expr"]
    assert not [f for f in NOT_EVERYWHERE if f in expr]
    words = re.findall(
        r"\b(up|[a-z_]*:?gradwatch_[a-z_0-9:]+)(\{[^}]*\})?", expr
    )
    assert words or name == "Watchdog"
    for metric, selector in words:
        assert '{job="gradwatch"' in selector, metric
        labels = set(re.findall(r"(\w+)(?:=|!)", selector)) - {"job"}
        if ":" in metric:
            assert metric in NAMED
        elif metric != "up":
            short = re.sub("_(sum|count)$", "", metric)
            family = known.get(metric) or known[short]
            assert labels <= set(family.labels)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_well_made(name: str) -> None:
    """Compared with something, named, explained; no value in its labels."""
    rule = NAMED[name]
    assert re.fullmatch("Gradwatch([A-Z][a-z]+)+|Watchdog", name)
    assert name == "Watchdog" or re.search(r" (==|<=|>=|<|>) ", rule["expr"])
    assert rule["labels"] == {"severity": ALERTS[name].severity}
    told = rule["annotations"]
    assert set(told) == {
        "summary",
        "description",
        "runbook_url",
        "dashboard_url",
    }
    assert "{{" not in told["summary"]
    assert told["summary"].endswith(".")
    if "absent(" in rule["expr"]:
        assert rule["for"] == "5m"


def test_every_alert_is_in_the_runbook() -> None:
    """Its link leads to a section with three parts, and there are no others."""
    text = files(Settings())["RUNBOOK.md"]
    sections = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    )
    assert set(sections) - {"Thresholds"} == set(ALERTS)
    for name in ALERTS:
        _, anchor = NAMED[name]["annotations"]["runbook_url"].split("#")
        assert anchor == name.lower()  # as GitHub makes them of headings
        for part in ("**Look first at:** ", "**Do:** ", "Severity `"):
            assert part in sections[name]


def test_runbook_names_what_exists() -> None:
    """Metrics in it are in the catalogue, commands on the command line."""
    from gradwatch.cli import app

    text = files(Settings())["RUNBOOK.md"]
    known = {family.name for family in families().values()}
    for metric in re.findall(r"`(gradwatch_[a-z_]+)", text):
        assert metric in known
    commands = {
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    }
    groups = {group.name for group in app.registered_groups}
    for command in re.findall(r"`gradwatch (\w+)", text):
        assert command in commands | groups


def test_files_name_no_machine() -> None:
    """Nothing in them depends on where they were built."""
    for text in files(Settings()).values():
        assert str(Path.home()) not in text.replace("/root/", "")
        assert "/tmp" not in text
