"""Tables of what was found and what is alerted, with what to do about it.

Metrics carry the name of a rule or an alert, not its words: these are the
rules' and the runbook's own, put into the dashboard.
"""

from __future__ import annotations

from gradwatch.monitoring.alerts import alerts
from gradwatch.monitoring.board import RUN
from gradwatch.monitoring.panels import Panel, texts
from gradwatch.monitoring.queries import Shown
from gradwatch.monitoring.tables import Column, table
from gradwatch.rules import default_rules

__all__ = ["alert_table", "finding_table", "run_links"]

_CHOSEN = "${datasource:queryparam}&${job:queryparam}&${__url_time_range}"
_SEVERITY = Column(
    "Severity",
    width=90,
    mappings=texts(
        {name: name for name in ("critical", "warning", "info")},
        {"critical": "red", "warning": "orange", "info": "blue"},
    ),
)


def run_links(shown: Shown) -> dict[str, str]:
    """Returns where a cell leads to whose row has a run."""
    run = "${__data.fields.run}"
    return {
        "Open this run": f"/d/{RUN}?var-run={run}&{_CHOSEN}",
        "Its page in the service": f"{shown.settings.service}/runs/{run}",
    }


def finding_table(shown: Shown) -> Panel:
    """Returns the findings in the time range, the newest first."""
    rules = default_rules()
    return table(
        "Findings",
        "gradwatch_finding_last_timestamp_seconds: what the rules have said in "
        "the time range. What a rule means and advises in general stands here; "
        "the message with steps, numbers and names is on the run's page in the "
        "service, and in findings.jsonl. Own rules show their name only.",
        [shown.findings("run, rule, severity, subject")],
        {
            "run": Column("Run", width=220, links=run_links(shown)),
            "severity": _SEVERITY,
            "rule": Column("Rule", width=160),
            "subject": Column("Subject", width=160),
            "Value": Column("Said last", "dateTimeFromNow", width=120),
            "meaning": Column(
                "What it means",
                mappings=texts({rule.name: rule.meaning for rule in rules}),
                wrap=True,
            ),
            "advice": Column(
                "What to do",
                mappings=texts({rule.name: rule.advice for rule in rules}),
                wrap=True,
            ),
        },
        sort="Said last",
    )


def alert_table(shown: Shown) -> Panel:
    """Returns the alerts that fire now."""
    known = alerts(shown.settings)
    firing = shown.matchers(alertname="=~Gradwatch.*", alertstate="firing")
    by = "alertname, severity, run, instance"
    named = f"max by ({by}) (ALERTS{{{firing}}})"
    for column in ("meaning", "todo"):
        named = f'label_replace({named}, "{column}", "$1", "alertname", "(.*)")'
    return table(
        "Alerts that fire",
        "ALERTS, as Prometheus has it: needs the rules of "
        "dashboards/prometheus. RUNBOOK.md says for each what to look at first "
        "and what to do.",
        [named],
        {
            "alertname": Column("Alert", width=240),
            "severity": _SEVERITY,
            "run": Column("Run", width=220, links=run_links(shown)),
            "instance": Column("Service", width=140),
            "meaning": Column(
                "What it means",
                mappings=texts({a.name: a.meaning for a in known}),
                wrap=True,
            ),
            "todo": Column(
                "What to do",
                mappings=texts({a.name: a.act for a in known}),
                wrap=True,
            ),
        },
    )
