"""`gradwatch monitoring`: writes the files that others read.

PyYAML is imported when a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradwatch.monitoring.thresholds import Settings, parse
from gradwatch.terminal import failed

__all__ = ["app", "build"]

app = typer.Typer(
    help="Alert rules, routes, dashboards and the runbook, as files.",
    no_args_is_help=True,
)


@app.callback()
def _root() -> None:
    """Alert rules, routes, dashboards and the runbook, as files."""


_Out = Annotated[Path, typer.Option(help="Folder to write to.")]
_Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Write nothing; exit status 1 if it would change."
    ),
]
_Thresholds = Annotated[
    list[str],
    typer.Option(
        metavar="NAME=VALUE",
        help="Another number in the rules; RUNBOOK.md lists them. May be "
        "repeated.",
    ),
]
_Scale = Annotated[
    float,
    typer.Option(min=1e-3, max=1, help="Multiplies all durations, for tests."),
]
_Job = Annotated[str, typer.Option(help="The Prometheus job of the service.")]
_Runbook = Annotated[str, typer.Option(help="Where RUNBOOK.md can be read.")]
_Grafana = Annotated[str, typer.Option(help="Where Grafana is.")]
_Webhook = Annotated[str, typer.Option(help="Where Alertmanager sends alerts.")]
_Watchdog = Annotated[
    str, typer.Option(help="Where it sends the dead-man's switch.")
]
_Service = Annotated[
    str, typer.Option(help="Where the service's pages are, for dashboards.")
]


@app.command()
def build(
    out: _Out = Path("dashboards"),
    check: _Check = False,
    threshold: _Thresholds = [],  # noqa: B006
    time_scale: _Scale = 1.0,
    job: _Job = Settings.job,
    runbook: _Runbook = Settings.runbook,
    grafana: _Grafana = Settings.grafana,
    webhook: _Webhook = Settings.webhook,
    watchdog: _Watchdog = Settings.watchdog,
    service: _Service = Settings.service,
) -> None:
    """Write rules, routes, dashboards and the runbook."""
    try:
        from gradwatch.monitoring.files import differing, files, write

        values = parse(threshold)
    except ModuleNotFoundError as error:
        raise failed(
            f"`gradwatch monitoring` needs {error.name}, which is not "
            "installed. Install it with: pip install 'gradwatch[monitoring]'"
        ) from None
    except ValueError as error:
        raise failed(f"`--threshold`: {error}") from None
    settings = Settings(
        values, time_scale, job, runbook, grafana, webhook, watchdog, service
    )
    found = files(settings)
    if check:
        if changed := differing(out, found):
            raise failed(
                f"Not current below {out}: {', '.join(changed)}. Write them "
                "with: gradwatch monitoring build"
            )
        return
    try:
        write(out, found)
    except OSError as error:
        raise failed(f"`--out {out}`: {error.strerror}.") from None
    typer.echo(f"Written below {out}: {', '.join(found)}")
