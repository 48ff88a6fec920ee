"""Commands that look at runs: `gradwatch status`.

They read run directories only, at any moment of a run. What a command needs is
imported when it runs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gradwatch.terminal import failed, wide_console

__all__ = ["status"]

_Logdirs = Annotated[
    list[Path],
    typer.Option(
        "--logdir", help="Folder with run directories; may be repeated."
    ),
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table.")
]


def status(
    logdir: _Logdirs = [Path("runs")],  # noqa: B006
    as_json: _Json = False,
) -> None:
    """List the runs: state, progress, loss, findings, last sign of life."""
    from gradwatch.listing import table
    from gradwatch.service.rows import rows as told
    from gradwatch.service.runs import Runs
    from gradwatch.strict_json import dumps

    for folder in logdir:
        if not folder.is_dir():
            raise failed(
                f"`--logdir`: Expected an existing folder. Received: {folder}."
            )
    runs = Runs(logdir)
    rows = told(runs.look(), time.time())
    for reason, count in runs.errors().items():
        if count:
            typer.echo(f"Not read ({reason}): {count}", err=True)
    if not rows:
        folders = ", ".join(map(str, logdir))
        raise failed(f"There is no run directory in {folders}.")
    if as_json:
        typer.echo(dumps(rows))
    else:
        wide_console().print(table(rows))
