"""What Prometheus is told where it runs in containers.

With Docker Compose it reads a file of its own, whose paths and addresses are
those of `docker-compose.yml`; on Kubernetes the Prometheus operator brings it
the rules as one object.
"""

from __future__ import annotations

from typing import Any

from gradwatch.monitoring.alerts import alert_groups, recorded
from gradwatch.monitoring.thresholds import Settings

__all__ = ["SAMPLE_LIMIT", "kustomization", "prometheus_rule", "scrapes"]

SAMPLE_LIMIT = 21_000
"""Samples of a scrape; more fail the whole of it. The service stays below."""

_RULES = "prometheusrule.yml"


def scrapes(s: Settings) -> dict[str, Any]:
    """Returns the configuration of the Prometheus in `docker-compose.yml`.

    It scrapes the service every 5 s, as trainers write at most once a second
    and somebody waits for what is critical; itself and Alertmanager, too.
    """
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "5s"},
        "rule_files": ["rules/recording.yml", "rules/alerts.yml"],
        "alerting": {"alertmanagers": [_targets("alertmanager:9093")]},
        "scrape_configs": [
            {
                "job_name": s.job,
                "scrape_interval": "5s",
                "sample_limit": SAMPLE_LIMIT,
                "body_size_limit": "16MB",
                "label_limit": 32,
                "label_value_length_limit": 256,
                **_targets("gradwatch:9753"),
            },
            {"job_name": "prometheus", **_targets("127.0.0.1:9090")},
            {"job_name": "alertmanager", **_targets("alertmanager:9093")},
        ],
    }


def prometheus_rule(s: Settings) -> dict[str, Any]:
    """Returns recording rules and alerts as an object of Kubernetes."""
    groups = [*recorded(s)["groups"], *alert_groups(s)["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "gradwatch",
            "labels": {"app.kubernetes.io/name": "gradwatch"},
        },
        "spec": {"groups": groups},
    }


def kustomization() -> dict[str, Any]:
    """Returns what makes the folder of that object one for `kubectl -k`."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [_RULES],
    }


def _targets(address: str) -> dict[str, Any]:
    return {"static_configs": [{"targets": [address]}]}
