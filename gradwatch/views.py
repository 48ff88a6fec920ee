"""Commands that look at runs: `gradwatch status` and `gradwatch findings`.

They read run directories only, at any moment of a run. What a command needs is
imported when it runs.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from gradwatch.terminal import (
    Json,
    JsonLines,
    Logdirs,
    RunDir,
    failed,
    wide_console,
)

__all__ = ["findings", "register", "status"]

_Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Again and again until Ctrl-C; into a pipe, one table after "
        "the other.",
    ),
]
_Interval = Annotated[
    float,
    typer.Option(min=0.1, help="Seconds between two tables of `--watch`."),
]
_Follow = Annotated[
    bool,
    typer.Option(
        "--follow", "-f", help="Go on with new ones until the run ends."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(
        epilog="Examples:\n\ngradwatch status --logdir runs --watch\n\n"
        "gradwatch status --json | jq '.[] | select(.health != \"ok\").run'"
    )(status)
    app.command(
        epilog="Examples:\n\ngradwatch findings runs/digits-* --follow\n\n"
        "gradwatch findings --json RUN_DIR | jq .message"
    )(findings)


def status(
    logdir: Logdirs = [Path("runs")],  # noqa: B006
    as_json: Json = False,
    watch: _Watch = False,
    interval: _Interval = 2.0,
) -> None:
    """List the runs: state, progress, loss, findings, last sign of life."""
    from gradwatch.listing import Look, show, watched
    from gradwatch.service.runs import Runs

    runs = Runs(logdir)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            watched(runs, wide_console(), interval, as_json)
        return
    for folder in logdir:
        if not folder.is_dir():
            raise failed(
                f"`--logdir`: Expected an existing folder. Received: {folder}."
            )
    look = Look(runs)
    for note in look.notes:
        typer.echo(note, err=True)
    if not look.rows:
        folders = ", ".join(map(str, logdir))
        raise failed(f"There is no run directory in {folders}.")
    show(look, wide_console(), as_json)


def findings(
    run_dir: RunDir, follow: _Follow = False, as_json: JsonLines = False
) -> None:
    """List a run's findings; exit status 3 if one of them is critical.

    In the order in which they came. One that an autopsy explains comes again
    with `--follow`. A run that is lost ends that with exit status 1.
    """
    from gradwatch.errors import GradWatchError
    from gradwatch.sinks.findings import read_findings
    from gradwatch.sinks.state import check
    from gradwatch.strict_json import dumps
    from gradwatch.tail import tail
    from gradwatch.wording import paragraphs

    console = wide_console()
    critical = told = False
    try:
        check(run_dir)
        for each in tail(run_dir) if follow else read_findings(run_dir):
            if as_json:
                typer.echo(dumps(each))
            else:
                paragraphs(each, console)
            critical |= each.severity == "critical"
            told = True
    except GradWatchError as error:
        raise failed(str(error)) from None
    except KeyboardInterrupt:
        pass
    if critical:
        raise typer.Exit(3)
    if not (told or as_json):
        console.print("no findings")
