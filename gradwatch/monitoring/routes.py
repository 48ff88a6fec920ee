"""The file that Alertmanager reads: who is told what, and what is muted.

One fault makes one notification, here too: what follows from it is muted.
"""

from __future__ import annotations

from typing import Any

from gradwatch.monitoring.thresholds import Settings, duration

__all__ = ["routes"]

_RUN = 'run=~".+"'  # `equal: [run]` would match alerts without a run, too
_BLIND = "GradwatchRunLost|GradwatchRunStalled|GradwatchLostReadings"
_NONFINITE = "GradwatchNonfinite.*|GradwatchTooManySkips|GradwatchRolledBack"
_SYMPTOMS = (
    "GradwatchRunFailed|GradwatchExplodingGradient|GradwatchDivergingLoss|"
    "GradwatchSkippedUpdates"
)


def routes(s: Settings) -> dict[str, Any]:
    """Returns Alertmanager's configuration.

    Critical alerts are sent within a second, each of its own; warnings half a
    minute later, a run's together. Alerts of severity `info` are sent nowhere:
    Prometheus' page shows them. The dead-man's switch is sent every minute to a
    receiver that raises the alarm when nothing comes.
    """
    return {
        "route": {
            "receiver": "warnings",
            "group_by": ["job", "run"],
            "group_wait": _seconds(s, 30),
            "group_interval": _seconds(s, 300),
            "repeat_interval": _seconds(s, 86_400, 60),
            "routes": [
                {
                    "matchers": ['alertname="Watchdog"'],
                    "receiver": "watchdog",
                    "group_wait": "0s",
                    "group_interval": _seconds(s, 60),
                    "repeat_interval": _seconds(s, 60),
                },
                {
                    "matchers": ['severity="critical"'],
                    "receiver": "critical",
                    "group_by": ["alertname", "job", "instance", "run"],
                    "group_wait": "1s",
                    "group_interval": _seconds(s, 30),
                    "repeat_interval": _seconds(s, 14_400, 60),
                },
                {"matchers": ['severity="info"'], "receiver": "nobody"},
            ],
        },
        "inhibit_rules": _inhibitions(),
        "receivers": [
            {"name": "nobody"},
            _webhook("critical", s.webhook, resolved=True),
            _webhook("warnings", s.webhook, resolved=True),
            _webhook("watchdog", s.watchdog, resolved=False),
        ],
    }


def _seconds(s: Settings, seconds: float, least: float = 1) -> str:
    return duration(s.scaled(seconds, least))


def _webhook(name: str, url: str, *, resolved: bool) -> dict[str, Any]:
    """Returns a receiver; with others, exchange `webhook_configs`."""
    sent = {"url": url, "send_resolved": resolved}
    return {"name": name, "webhook_configs": [sent]}


def _inhibitions() -> list[dict[str, Any]]:
    """Returns which alerts mute which others."""
    run, service = ["run"], ["job", "instance"]
    return [
        _mutes('severity="critical"', 'severity=~"warning|info"', run),
        _mutes(f'alertname=~"{_NONFINITE}"', f'alertname=~"{_SYMPTOMS}"', run),
        _mutes(
            'alertname=~"GradwatchRunFailed|GradwatchRunLost"',
            f'alertname!~"GradwatchRun.*|{_NONFINITE}"',
            run,
        ),
        _mutes(
            'alertname=~"GradwatchExporterDown|GradwatchDiskFull"',
            f'alertname=~"{_BLIND}"',
            service,
        ),
    ]


def _mutes(source: str, target: str, equal: list[str]) -> dict[str, Any]:
    of_run = [_RUN] if equal == ["run"] else []
    return {
        "source_matchers": [source, *of_run],
        "target_matchers": [target, *of_run],
        "equal": equal,
    }
