"""Runs side by side, as `gradwatch status` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from gradwatch.service.words import age

__all__ = ["table"]


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Returns what `service.rows` tells as a table for a terminal."""
    listed = Table(box=None, pad_edge=False)
    listed.add_column("run", overflow="fold")
    for name in ("state", "step", "loss", "gradient norm", "findings", "beat"):
        listed.add_column(name, no_wrap=True)
    for each in rows:
        listed.add_row(*map(Text, _cells(each)))
    return listed


def _cells(row: Mapping[str, Any]) -> list[str]:
    state, reason = row["state"], row["reason"]
    if row["health"] != "ok":
        state, reason = row["health"], ""
    planned = row["planned_steps"]
    return [
        row["run"],
        f"{state} ({reason})" if reason else state,
        f"{row['steps']}/{planned}" if planned else str(row["steps"]),
        _number(row["loss"]),
        _number(row["gradient_norm"]),
        str(sum(row["findings"].values())),
        age(row["beat_age_seconds"]),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
