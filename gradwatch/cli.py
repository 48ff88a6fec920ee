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
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gradwatch.interfaces import Rule
    from gradwatch.metrics import Snapshot

__all__ = ["app", "demo", "judge", "main", "serve", "status"]

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
    from gradwatch.service.runs import Runs
    from gradwatch.strict_json import dumps

    for folder in logdir:
        if not folder.is_dir():
            raise _failed(
                f"`--logdir`: Expected an existing folder. Received: {folder}."
            )
    runs = Runs(logdir)
    now = time.time()
    rows = [_row(snapshot, now) for snapshot in runs.scan()]
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
        console.print(_table(rows))


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


def _rules(name: str) -> list[Rule]:
    """Returns new rules of `MODULE:NAME`, also of the working directory's."""
    sys.path.insert(0, "")
    try:
        found = pkgutil.resolve_name(name)
        return list(found() if callable(found) else found)
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        raise _failed(f"`--rules {name}`: {error}.") from None


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


def _row(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """Returns what `status` says about one run; `None` = not measured."""
    from gradwatch.exposition import clean
    from gradwatch.service.runs import health

    newest = {(s, subject): v for s, subject, v in snapshot["values"]}
    loss, norm = newest.get(("loss", "")), newest.get(("gradient_norm", ""))
    lost = health(snapshot, now) == "lost"
    return {
        "run": snapshot["run"]["id"],
        "state": "lost" if lost else snapshot["phase"],
        "reason": clean(snapshot["reason"]),
        "steps": snapshot["steps"],
        "planned_steps": snapshot["planned_steps"],
        "loss": None if loss is None else float(loss),
        "gradient_norm": None if norm is None else float(norm),
        "findings": sum(n for *_, n in snapshot["counters"]["findings"]),
        "beat_age_seconds": now - float(snapshot["heartbeat"]),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for name in ("state", "step", "loss", "gradient norm", "findings", "beat"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    state, reason = row["state"], row["reason"]
    planned = row["planned_steps"]
    return [
        row["run"],
        f"{state} ({reason})" if reason else state,
        f"{row['steps']}/{planned}" if planned else str(row["steps"]),
        _number(row["loss"]),
        _number(row["gradient_norm"]),
        str(row["findings"]),
        _age(row["beat_age_seconds"]),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _age(seconds: float) -> str:
    """Returns how long ago, in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0.0):.0f} s ago"


if __name__ == "__main__":
    main()
