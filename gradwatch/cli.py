"""The command line: each command is one small function.

What a command needs is imported when it runs: the import of this module loads
neither Keras nor TensorFlow, and no web server.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradwatch.audit.command import register as audit_functions
from gradwatch.compare.command import register as compare_runs
from gradwatch.drill import drill
from gradwatch.errors import not_installed
from gradwatch.monitoring.command import app as monitoring
from gradwatch.report.command import register as report_runs
from gradwatch.terminal import JsonLines, Logdirs, RunDir, failed, typed
from gradwatch.views import register as look_at_runs

if TYPE_CHECKING:
    from gradwatch.interfaces import Rule

__all__ = ["app", "autopsy", "demo", "judge", "main", "serve"]

_Host = Annotated[str, typer.Option(help="Interface to listen on.")]
_Port = Annotated[
    int, typer.Option(min=0, max=65535, help="TCP port; 0 = a free one.")
]
_AuthFile = Annotated[
    Path | None,
    typer.Option(help="File with one `user:password` or token a line."),
]
_Certificate = Annotated[
    Path | None, typer.Option(help="Certificate; serves HTTPS.")
]
_Key = Annotated[Path | None, typer.Option(help="Key of the certificate.")]
_Retention = Annotated[
    float, typer.Option(min=0, help="Seconds a run is exported after its end.")
]
_StalledAfter = Annotated[
    float, typer.Option(min=1, help="Seconds of a step after which it hangs.")
]
_Grafana = Annotated[
    str, typer.Option(help="Grafana to link to, with the dashboards.")
]
_TensorBoard = Annotated[
    str, typer.Option(help="TensorBoard of the same logdir to link to.")
]

app = typer.Typer(
    name="gradwatch",
    help="Makes a long Keras run visible and says what goes wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(monitoring, name="monitoring")


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


app.command()(drill)
look_at_runs(app)
compare_runs(app)
report_runs(app)
audit_functions(app)


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

        run(logdir, console, typed())
    except ModuleNotFoundError as error:
        what, extra = "`gradwatch demo`", "tensorflow,demo"
        said = not_installed(what, str(error.name), extra)
        raise failed(said) from None
    except GradWatchError as error:
        raise failed(str(error)) from None


@app.command()
def serve(
    logdir: Logdirs,
    host: _Host = "127.0.0.1",
    port: _Port = 9753,
    auth_file: _AuthFile = None,
    ssl_certfile: _Certificate = None,
    ssl_keyfile: _Key = None,
    retention: _Retention = 900.0,
    stalled_after: _StalledAfter = 300.0,
    grafana_url: _Grafana = "",
    tensorboard_url: _TensorBoard = "",
) -> None:
    """Serve all runs: a web page, an API, metrics for Prometheus."""
    try:
        from gradwatch.service.command import serve as run
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from gradwatch.errors import GradWatchError
    from gradwatch.service.options import Options

    options = Options(
        retention=retention,
        stalled_after=stalled_after,
        grafana=grafana_url,
        tensorboard=tensorboard_url,
    )
    files = {"ssl_certfile": ssl_certfile, "ssl_keyfile": ssl_keyfile}
    try:
        run(logdir, host, port, options, auth_file, files, typer.echo)
    except GradWatchError as error:
        raise failed(str(error)) from None


@app.command()
def judge(
    run_dir: RunDir,
    rules: Annotated[
        str,
        typer.Option(
            metavar="MODULE:NAME",
            help="Rules: a function that returns a list of them, or a list.",
        ),
    ] = "gradwatch:default_rules",
    as_json: JsonLines = False,
) -> None:
    """Judge a recorded run again; exit status 3 if something is found."""
    from gradwatch.errors import GradWatchError
    from gradwatch.replay import replay
    from gradwatch.strict_json import dumps

    try:
        findings = replay(run_dir, _rules(rules))
    except GradWatchError as error:
        raise failed(str(error)) from None
    for finding in findings:
        said = f"{finding.severity}: {finding.rule}: {finding.message}"
        typer.echo(dumps(finding) if as_json else f"{said} {finding.advice}")
    if findings:
        raise typer.Exit(3)
    if not as_json:
        typer.echo("no findings")


@app.command()
def autopsy(
    run_dir: RunDir,
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

    Writes autopsy.md and autopsy.json into each black box, and the headlines
    into state.json.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    build = _resolved("--model", model)
    from gradwatch.autopsy.boxes import examine_all
    from gradwatch.errors import GradWatchError
    from gradwatch.sinks.state import add_autopsies
    from gradwatch.strict_json import dumps

    try:
        headlines = []
        for _, found in examine_all(run_dir, build):
            report = dumps(found.to_dict()) if as_json else found.to_markdown()
            typer.echo(report)
            headlines.append(found.brief())
        add_autopsies(run_dir, headlines)
    except (GradWatchError, OSError) as error:
        raise failed(str(error)) from None


def _rules(name: str) -> list[Rule]:
    """Returns new rules of `MODULE:NAME`."""
    found = _resolved("--rules", name)
    try:
        return list(found() if callable(found) else found)
    except TypeError as error:
        raise failed(f"`--rules {name}`: {error}.") from None


def _resolved(option: str, name: str) -> Any:
    """Returns what `MODULE:NAME` is, also of the working directory's."""
    sys.path.insert(0, "")
    try:
        return pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise failed(f"`{option} {name}`: {error}.") from None


def _missing(error: ModuleNotFoundError) -> Exception:
    """Returns what to raise when the web server's packages are not there."""
    needed = ("starlette", "uvicorn", "jinja2")
    if (error.name or "").partition(".")[0] not in needed:
        return error
    said = not_installed("`gradwatch serve`", str(error.name), "serve")
    return failed(said)


if __name__ == "__main__":
    main()
