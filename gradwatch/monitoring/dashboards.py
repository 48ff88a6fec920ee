"""The dashboards, as Grafana 11 to 13 import them."""

from __future__ import annotations

import json
from typing import Any

from gradwatch.monitoring.fleet import fleet
from gradwatch.monitoring.layers import layers
from gradwatch.monitoring.run_board import run_board
from gradwatch.monitoring.thresholds import Settings

__all__ = ["dashboard_files", "dashboards"]


def dashboards(s: Settings) -> list[dict[str, Any]]:
    """Returns all dashboards: of all runs, of one, of its layers."""
    return [fleet(s), run_board(s), layers(s)]


def dashboard_files(s: Settings) -> dict[str, str]:
    """Returns name -> JSON; a dashboard is called as its uid."""
    return {
        f"{board['uid']}.json": json.dumps(board, indent=2) + "\n"
        for board in dashboards(s)
    }
