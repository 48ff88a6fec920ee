"""Alertmanager's configuration, as its own tool reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradwatch.monitoring.alerts import alerts
from gradwatch.monitoring.thresholds import Settings

FILE = "alertmanager/alertmanager.yml"


@pytest.mark.parametrize("scale", [1, 1 / 120])
def test_amtool_accepts_the_routes(
    built: Callable[..., Path], tool: Callable[..., Any], scale: float
) -> None:
    """They are valid, at any time scale."""
    folder = built(time_scale=scale)
    done = tool("amtool", "check-config", folder / FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_receiver(
    built: Callable[..., Path], tool: Callable[..., Any]
) -> None:
    """By severity; the dead-man's switch has one of its own."""
    file = built() / FILE
    wanted = {
        "critical": "critical",
        "warning": "warnings",
        "info": "nobody",
        "none": "watchdog",
    }
    for alert in alerts(Settings()):
        done = tool(
            "amtool",
            *("config", "routes", "test", "--config.file", file),
            *(f"alertname={alert.name}", f"severity={alert.severity}"),
        )
        assert done.stdout.split() == [wanted[alert.severity]], alert.name
