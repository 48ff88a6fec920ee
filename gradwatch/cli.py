"""The command line: each command is one small function.

What a command needs is imported when it runs: the import of this module loads
neither Keras nor TensorFlow, and no web server.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from gradwatch.interfaces import Rule

__all__ = ["app", "autopsy", "demo", "judge", "main", "serve", "status"]

_Logdirs = Annotated[
    list[Path],
    typer.Option(
        "--logdir", help="Folder with run directories; may be repeated."
    ),
]

app = typer.Typer(
    name="gradwatch",
    help="Makes a long Keras run visible and says what goes wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command that the arguments name."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from gradwatch.metrics import installed_version

        typer.echo(installed_version("gradwatch") or "not installed")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Makes a long Keras run visible and says what goes wrong."""


@app.command()
def demo(
    logdir: Annotated[
        Path, typer.Option(help="Folder for the run directories.")
    ] = Path("runs"),
) -> None:
    """Train on real data: a healthy run and one that turns NaN."""
    # TensorFlow's own start-up messages would drown what is to be shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("gradwatch").setLevel(logging.ERROR)
    console = Console()
    console.print("Loading TensorFlow ...", highlight=False)
    try:
        from gradwatch.demo import demo as run
        from gradwatch.errors import GradWatchError

        run(logdir, console)
    except ModuleNotFoundError as error:
        raise _failed(
            f"`gradwatch demo` needs {error.name}, which is not installed. "
            "Install it with: pip install 'gradwatch[tensorflow,demo]'"
        ) from None
    except GradWatchError as error:
        raise _failed(str(error)) from None


@app.command()
def serve(
    logdir: _Logdirs,
    host: Annotated[
        str, typer.Option(help="Interface to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port; 0 = a free one.")
    ] = 9753,
) -> None:
    """Serve the metrics of all runs to Prometheus."""
    try:
        from gradwatch.service.app import (
            create_app,
            create_server,
            is_loopback,
            listen,
        )
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from gradwatch.service.runs import Runs

    for folder in logdir:
        if not folder.is_dir():
            typer.echo(f"`{folder}` does not exist yet; waiting.", err=True)
    if not is_loopback(host):
        message = f"Everybody who can reach {host} can read the metrics."
        typer.echo(message, err=True)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise _failed(
            f"`--host {host} --port {port}`: cannot listen there "
            f"({error.strerror}). Choose another port; 0 takes a free one."
        ) from None
    real = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"Serving http://{shown}:{real}/metrics")
    create_server(create_app(Runs(logdir))).run(sockets=[listening])


@app.command()
def status(
    logdir: _Logdirs = [Path("runs")],  # noqa: B006
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """List the runs: state, progress, loss, findings, last sign of life."""
    from gradwatch.listing import row, table
    from gradwatch.service.runs import Runs
    from gradwatch.strict_json import dumps

    for folder in logdir:
        if not folder.is_dir():
            raise _failed(
                f"`--logdir`: Expected an existing folder. Received: {folder}."
            )
    runs = Runs(logdir)
    now = time.time()
    rows = [row(snapshot, now) for snapshot in runs.scan()]
    for reason, count in runs.errors().items():
        if count:
            typer.echo(f"Not read ({reason}): {count}", err=True)
    if not rows:
        folders = ", ".join(map(str, logdir))
        raise _failed(f"There is no run directory in {folders}.")
    if as_json:
        typer.echo(dumps(rows))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 200  # a pipe has no width: one line for each run
        console.print(table(rows))


@app.command()
def judge(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    rules: Annotated[
        str,
        typer.Option(
            metavar="MODULE:NAME",
            help="Rules: a function that returns a list of them, or a list.",
        ),
    ] = "gradwatch:default_rules",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one finding a line.")
    ] = False,
) -> None:
    """Judge a recorded run again; exit status 3 if something is found."""
    from gradwatch.errors import GradWatchError
    from gradwatch.replay import replay
    from gradwatch.strict_json import dumps

    try:
        findings = replay(run_dir, _rules(rules))
    except GradWatchError as error:
        raise _failed(str(error)) from None
    for finding in findings:
        said = f"{finding.severity}: {finding.rule}: {finding.message}"
        typer.echo(dumps(finding) if as_json else f"{said} {finding.advice}")
    if findings:
        raise typer.Exit(3)
    if not as_json:
        typer.echo("no findings")


@app.command()
def autopsy(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODULE:NAME",
            help="A function that returns the run's model, compiled and built.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one autopsy a line.")
    ] = False,
) -> None:
    """Replay the bad steps of a run: which operation, in which line.

    Writes autopsy.md and autopsy.json into each black box.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    build = _resolved("--model", model)
    from gradwatch.autopsy.boxes import examine_all
    from gradwatch.errors import GradWatchError
    from gradwatch.strict_json import dumps

    try:
        for _, found in examine_all(run_dir, build):
            report = dumps(found.to_dict()) if as_json else found.to_markdown()
            typer.echo(report)
    except (GradWatchError, OSError) as error:
        raise _failed(str(error)) from None


def _rules(name: str) -> list[Rule]:
    """Returns new rules of `MODULE:NAME`."""
    found = _resolved("--rules", name)
    try:
        return list(found() if callable(found) else found)
    except TypeError as error:
        raise _failed(f"`--rules {name}`: {error}.") from None


def _resolved(option: str, name: str) -> Any:
    """Returns what `MODULE:NAME` is, also of the working directory's."""
    sys.path.insert(0, "")
    try:
        return pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise _failed(f"`{option} {name}`: {error}.") from None


def _failed(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)


def _missing(error: ModuleNotFoundError) -> Exception:
    """Returns what to raise when the web server's packages are not there."""
    if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
        return error
    return _failed(
        f"`gradwatch serve` needs {error.name}, which is not installed. "
        "Install it with: pip install 'gradwatch[serve]'"
    )


if __name__ == "__main__":
    main()
