"""`gradwatch drill`: proves that an alert reaches the people it is for."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gradwatch.errors import not_installed
from gradwatch.health import STALLED_AFTER
from gradwatch.onlooker import Seen, look_on
from gradwatch.strict_json import dumps
from gradwatch.terminal import failed, wide_console
from gradwatch.testing.drills import DRILLS, Drill

__all__ = ["drill"]


_Scenario = Annotated[
    str, typer.Option(help="What goes wrong; `--list` shows them.")
]
_Logdir = Annotated[Path, typer.Option(help="Folder for the run directory.")]
_AtStep = Annotated[
    int | None,
    typer.Option(min=0, help="Step at which it comes.", show_default=False),
]
_Seconds = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="How long a hang, slow steps, or the run after a warning last, so "
        "that the alert gets through.",
        show_default=False,
    ),
]
_StalledAfter = Annotated[
    float, typer.Option(min=1, help="As `gradwatch serve` is told.")
]
_List = Annotated[bool, typer.Option("--list", help="List the scenarios.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def drill(
    scenario: _Scenario = "",
    logdir: _Logdir = Path("runs"),
    at_step: _AtStep = None,
    seconds: _Seconds = None,
    stalled_after: _StalledAfter = STALLED_AFTER,
    listing: _List = False,
    as_json: _Json = False,
) -> None:
    """Break a small training on purpose; exit status 1 if nobody notices."""
    if listing:
        _show_list(as_json)
        return
    chosen = _chosen(scenario)
    _check_packages()
    step = chosen.at_step if at_step is None else at_step
    lasts = chosen.seconds if seconds is None else seconds
    seen = Seen(chosen)
    lines = look_on(seen, logdir, step, lasts, stalled_after=stalled_after)
    _show(seen, lines, as_json)
    if not seen.passed:
        raise typer.Exit(1)


def _chosen(scenario: str) -> Drill:
    """Returns the drill of that name."""
    if scenario not in DRILLS:
        raise typer.BadParameter(
            f"Expected one of {', '.join(DRILLS)}. Received: {scenario!r}.",
            param_hint="--scenario",
        )
    return DRILLS[scenario]


def _check_packages() -> None:
    """Ends the command if the training would find a package missing."""
    for package in ("tensorflow", "keras", "sklearn"):
        if find_spec(package) is None:
            what, extra = "`gradwatch drill`", "tensorflow,demo"
            raise failed(not_installed(what, package, extra))


def _show(seen: Seen, lines: Iterator[str], as_json: bool) -> None:
    """Shows what is seen while it is seen, or all of it as JSON."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines:
        if not as_json:
            console.print(line)
    if as_json:
        typer.echo(dumps(seen.plain()))
    elif seen.passed:
        alert = seen.drill.alert or "none"
        console.print(f"Passed. The alert that must reach you now: {alert}.")
    else:
        console.print(
            f"{seen.error}\nFailed. Expected: {_expected(seen.drill)}."
        )


def _show_list(as_json: bool) -> None:
    if as_json:
        typer.echo(dumps([_plain(each) for each in DRILLS.values()]))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("scenario", "what goes wrong", "what must be said", "alert"):
        table.add_column(name, overflow="fold")
    for each in DRILLS.values():
        table.add_row(each.name, each.meaning, _expected(each), each.alert)
    wide_console().print(table)


def _plain(each: Drill) -> dict[str, object]:
    return {name: getattr(each, name) for name in each.__slots__}


def _expected(each: Drill) -> str:
    """Returns what must be seen, in words."""
    return ", ".join([*each.rules, each.state])
