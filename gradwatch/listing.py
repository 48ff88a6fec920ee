"""Runs side by side, as `gradwatch status` lists them, once or again and again.

Colours and control characters go to terminals only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gradwatch.drawing.words import age, utc
from gradwatch.service.rows import rows
from gradwatch.service.runs import Runs
from gradwatch.strict_json import dumps

__all__ = ["Look", "show", "table", "watched"]

_STYLES = {
    "failed": "red",
    "lost": "red",
    "stalled": "yellow",
    "finished": "green",
    "critical": "red",
    "warning": "yellow",
}


class Look:
    """What some runs say at one moment.

    Args:
        runs: looked at once more.

    Attributes:
        time: Unix seconds.
        rows: see `service.rows`.
        notes: what could not be read, a line for each reason.
    """

    def __init__(self, runs: Runs) -> None:
        before = runs.errors()
        seen = runs.look()
        self.time = time.time()
        self.rows = rows(seen, self.time)
        self.notes = [
            f"Not read ({reason}): {count - before[reason]}"
            for reason, count in runs.errors().items()
            if count > before[reason]
        ]


def show(look: Look, console: Console, as_json: bool) -> None:
    """Prints a table of the runs, or one line of JSON."""
    if as_json:
        typer.echo(dumps(look.rows))
    else:
        console.print(table(look.rows))


def watched(
    runs: Runs, console: Console, interval: float, as_json: bool
) -> None:
    """Shows the runs again and again, until KeyboardInterrupt.

    In place on a terminal, otherwise one table or line of JSON after the other.

    Args:
        runs: where to look; folders may come later.
        console: standard output.
        interval: seconds between two looks.
        as_json: whether to print JSON.
    """
    if as_json or not sys.stdout.isatty():
        while True:
            _append(Look(runs), console, as_json)
            time.sleep(interval)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            look = Look(runs)
            live.update(_view(look, f"every {interval:g} s"), refresh=True)
            time.sleep(interval)


def _append(look: Look, console: Console, as_json: bool) -> None:
    """Prints one look of many."""
    if as_json:
        show(look, console, as_json)
        for note in look.notes:
            typer.echo(note, err=True)
    else:
        console.print(_view(look, ""))
    sys.stdout.flush()


def _view(look: Look, how: str) -> Group:
    """The time, the table and what could not be read."""
    head = Text(f"{utc(look.time)} {how}".rstrip(), "dim")
    body = table(look.rows) if look.rows else Text("no run yet")
    return Group(head, body, *(Text(note, "yellow") for note in look.notes), "")


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Returns what `service.rows` tells as a table for a terminal."""
    listed = Table(box=None, pad_edge=False)
    listed.add_column("run", overflow="fold")
    for name in ("state", "step", "loss", "gradient norm", "findings", "beat"):
        listed.add_column(name, no_wrap=True)
    for each in rows:
        listed.add_row(*_cells(each))
    return listed


def _cells(row: Mapping[str, Any]) -> list[Text]:
    state, reason = row["state"], row["reason"]
    if row["health"] != "ok":
        state, reason = row["health"], ""
    style = _STYLES.get(state, "")
    planned, found = row["planned_steps"], row["findings"]
    worst = next((s for s in ("critical", "warning") if found[s]), "")
    return [
        Text(row["run"]),
        Text(f"{state} ({reason})" if reason else state, style),
        Text(f"{row['steps']}/{planned}" if planned else str(row["steps"])),
        Text(_number(row["loss"])),
        Text(_number(row["gradient_norm"])),
        Text(str(sum(found.values())), _STYLES.get(worst, "")),
        Text(age(row["beat_age_seconds"])),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
