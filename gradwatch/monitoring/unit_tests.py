"""The file that `promtool test rules` reads, made of cases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from gradwatch.monitoring.alert import Alert
from gradwatch.monitoring.alerts import KEPT, alerts, texts
from gradwatch.monitoring.cases import Case, cases
from gradwatch.monitoring.thresholds import Settings, duration
from gradwatch.monitoring.world import INTERVAL, LABELS, STEPS, World, written

__all__ = ["unit_tests"]

_GAP = 60.0  # seconds that a restart of the service takes
_RETENTION = 900.0  # seconds for which an ended run has series
_HOURS = 1.5
_FIRING = (
    'count by (alertname) (ALERTS{alertname!="Watchdog",alertstate="firing"})'
)
_TEMPLATE = re.compile(r"(\{\{ with.*\{\{ end \}\}|\{\{[^}]*\}\})")


def unit_tests() -> dict[str, Any]:
    """Returns the tests, which know the default thresholds."""
    s = Settings()
    known = {alert.name: alert for alert in alerts(s)}
    tests = [_healthy(known["Watchdog"]), _checkpoint()]
    for case in cases():
        tests += _tests(s, case, known[case.alert])
    return {
        "rule_files": ["recording.yml", "alerts.yml"],
        "evaluation_interval": duration(INTERVAL),
        "group_eval_order": [
            "gradwatch-records",
            "gradwatch-findings",
            "gradwatch-runs",
            "gradwatch-service",
        ],
        "tests": tests,
    }


def _healthy(watchdog: Alert) -> dict[str, Any]:
    """A run that learns and ends: nothing fires but the dead-man's switch."""
    world = World(_HOURS)
    world.end("finished", 3600)
    silent = dict.fromkeys(map(float, range(0, 5400, 300)), ())
    always = {
        "exp_labels": {"severity": watchdog.severity},
        "exp_annotations": texts(Settings(), watchdog),
    }
    told = {
        "eval_time": "0s",
        "alertname": watchdog.name,
        "exp_alerts": [always],
    }
    test = _test("a healthy run", world, silent)
    return {**test, "alert_rule_test": [told]}


def _checkpoint() -> dict[str, Any]:
    """What takes long between two steps is no stall: the service knows."""
    world = World(_HOURS)
    world.freeze(1200, *STEPS)
    world.end("finished", 3600)
    silent = dict.fromkeys(map(float, range(0, 5400, 300)), ())
    return _test("a checkpoint of 40 minutes", world, silent)


def _tests(s: Settings, case: Case, alert: Alert) -> Iterator[dict[str, Any]]:
    """Yields the tests of one case."""
    fires, name = case.fires, (case.alert,)
    before = max(fires - INTERVAL, 0)

    world = _world(case)
    test = _test(case.name, world, {before: (), fires: name})
    yield {**test, "alert_rule_test": _texts(s, case, alert, before)}

    world, back = _world(case), fires + 60 + _GAP
    world.poison(fires - 300, fires - 120)
    expected = {before: (), fires: name}
    if case.alert not in ("GradwatchExporterDown", "GradwatchExporterAbsent"):
        world.hide(fires + 60, back)
        expected |= {back - INTERVAL: name, back: name}
    yield _test(f"{case.name}, with NaN, over a restart", world, expected)
    if "run" in case.of:
        yield _ended(case)


def _ended(case: Case) -> dict[str, Any]:
    """The run ends before the alert fires, or soon after."""
    world, fires, name = _world(case), case.fires, (case.alert,)
    if case.going:
        world.end("finished", min(fires, max(fires - INTERVAL, 0)))
        expected = dict.fromkeys((fires, fires + 60, fires + 600), ())
        return _test(f"{case.name}, ended before", world, expected)
    gone = fires + 60 + _RETENTION + KEPT + 3 * INTERVAL
    if world.series[world.key("run_state", state="failed")][-1] == 0:
        world.end("finished", fires + 60)
    return _test(f"{case.name}, ended", world, {fires + 300: name, gone: ()})


def _world(case: Case) -> World:
    world = World(_HOURS)
    case.happens(world)
    return world


def _test(
    name: str, world: World, expected: Mapping[float, tuple[str, ...]]
) -> dict[str, Any]:
    """Returns a test: second -> alerts that fire then, and no others do."""
    return {
        "name": name,
        "interval": duration(INTERVAL),
        "input_series": [
            _series(key, written(values))
            for key, values in world.series.items()
            if any(value is not None for value in values)
        ],
        "promql_expr_test": [
            {
                "expr": _FIRING,
                "eval_time": duration(second),
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1}
                    for name in names
                ],
            }
            for second, names in expected.items()
        ],
    }


@cache
def _series(key: str, values: str) -> dict[str, str]:
    """Returns a series; the same object, so that YAML writes it once."""
    return {"series": key, "values": values}


def _texts(
    s: Settings, case: Case, alert: Alert, before: float
) -> list[dict[str, Any]]:
    """Returns tests of an alert's labels and annotations."""
    labels = {name: LABELS[name] for name in case.of}
    labels |= {**case.labels, "severity": alert.severity}
    told = {
        name: _rendered(text, labels, case.shown)
        for name, text in texts(s, alert).items()
    }
    found = {"exp_labels": labels, "exp_annotations": told}
    return [
        {
            "eval_time": duration(second),
            "alertname": alert.name,
            "exp_alerts": alerts,
        }
        for second, alerts in ((before, []), (case.fires, [found]))
    ]


def _rendered(
    text: str, labels: Mapping[str, str], shown: Mapping[str, str]
) -> str:
    """Returns a text with its templates filled in."""

    def fill(found: re.Match[str]) -> str:
        template = found[1]
        for part, value in shown.items():
            if part in template:
                return value
        return labels[template.strip("{} ").removeprefix("$labels.")]

    return _TEMPLATE.sub(fill, text)
