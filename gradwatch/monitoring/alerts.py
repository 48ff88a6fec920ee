"""The files that Prometheus reads: recording rules and alerts."""

from __future__ import annotations

from typing import Any

from gradwatch.monitoring.alert import Alert, finite
from gradwatch.monitoring.findings import finding_alerts
from gradwatch.monitoring.liveness import (
    STEP_TIME,
    run_alerts,
    service_alerts,
)
from gradwatch.monitoring.losses import recordings
from gradwatch.monitoring.thresholds import Settings, duration

__all__ = ["KEPT", "alert_groups", "alerts", "recorded", "texts"]

KEPT = 60.0
"""Seconds for which a steady alert goes on firing, before scaling."""


def alerts(s: Settings) -> list[Alert]:
    """Returns all alerts, in the order in which they are shown."""
    return [*finding_alerts(s), *run_alerts(s), *service_alerts(s)]


def recorded(s: Settings) -> dict[str, Any]:
    """Returns the recording rules, as Prometheus reads them.

    Their names tell the windows at a time scale of 1.
    """
    short, long = s.range(300), duration(max(s.scaled(1800), 40))
    total = s.series("step_duration_seconds_sum")
    count = s.series("step_duration_seconds_count")
    norm = finite(s.series("gradient_norm"))
    rules = {
        "run:gradwatch_steps:rate5m": f"sum without (rank) (rate("
        f"{s.series('steps_total')}[{short}]))",
        STEP_TIME: f"rate({total}[{short}])\n/ (rate({count}[{short}]) > 0)",
        "run:gradwatch_gradient_norm:median30m": f"quantile_over_time(0.5, "
        f"{norm}[{long}:])",
        **recordings(s),
    }
    found = [{"record": name, "expr": expr} for name, expr in rules.items()]
    return {"groups": [{"name": "gradwatch-records", "rules": found}]}


def alert_groups(s: Settings) -> dict[str, Any]:
    """Returns the alert rules, as Prometheus reads them."""
    groups = {
        "gradwatch-findings": finding_alerts(s),
        "gradwatch-runs": run_alerts(s),
        "gradwatch-service": service_alerts(s),
    }
    return {
        "groups": [
            {"name": name, "rules": [_rule(s, alert) for alert in found]}
            for name, found in groups.items()
        ]
    }


def texts(s: Settings, alert: Alert) -> dict[str, str]:
    """Returns what a notification can show, in Prometheus' templates."""
    return {
        "summary": alert.meaning,
        "description": alert.said,
        "runbook_url": f"{s.runbook}#{alert.name.lower()}",
        "dashboard_url": f"{s.grafana}/d/{alert.dashboard}",
    }


def _rule(s: Settings, alert: Alert) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    if alert.wait:
        rule["for"] = duration(alert.wait)
    if alert.steady:
        rule["keep_firing_for"] = duration(s.scaled(KEPT, 2))
    rule["labels"] = {"severity": alert.severity}
    rule["annotations"] = texts(s, alert)
    return rule
