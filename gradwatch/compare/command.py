"""`gradwatch compare`: two recorded runs, and where they part."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gradwatch.errors import not_installed
from gradwatch.terminal import Json, Logdirs, failed, wide_console

__all__ = ["compare", "register"]

_One = Annotated[
    str,
    typer.Argument(
        metavar="run_a", help="A run directory, or the id or name of a run."
    ),
]
_Other = Annotated[str, typer.Argument(metavar="run_b", help="Another one.")]
_Html = Annotated[
    Path | None,
    typer.Option(
        help="Also write an HTML file, with charts.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command(
        epilog="Examples:\n\ngradwatch compare runs/digits-20260101-* "
        "runs/digits-20260102-*\n\n"
        "gradwatch compare baseline mine --logdir runs --json | jq .story"
    )(compare)


def compare(
    run_a: _One,
    run_b: _Other,
    logdir: Logdirs = [Path("runs")],  # noqa: B006
    html: _Html = None,
    as_json: Json = False,
) -> None:
    """Compare two runs: where they part, and by what; exit status 3 if they do.

    Runs that differ by no more than rounding explains are the same.
    """
    from gradwatch.compare.comparison import compare as compared
    from gradwatch.compare.show import show
    from gradwatch.compare.story import story
    from gradwatch.errors import GradWatchError
    from gradwatch.sinks.state import find_run
    from gradwatch.strict_json import dumps

    try:
        paths = find_run(run_a, logdir), find_run(run_b, logdir)
        told = compared(*paths)
        if html:
            page = _page()(told, *paths, time.time())
            html.write_text(page, encoding="utf-8")
    except (GradWatchError, ModuleNotFoundError, OSError) as error:
        raise failed(str(error)) from None
    if as_json:
        typer.echo(dumps({"story": story(told), **asdict(told)}))
    else:
        show(told, wide_console())
    if told.readings.verdict == "unknown":
        raise failed(
            "No step is recorded in both runs: there is nothing to compare."
        )
    if told.readings.verdict == "different":
        raise typer.Exit(3)


def _page() -> Callable[..., str]:
    """Returns what makes HTML.

    Raises:
        ModuleNotFoundError: the extra `[report]` is not installed.
    """
    try:
        from gradwatch.compare.page import page
    except ModuleNotFoundError as error:
        what = "`gradwatch compare --html`"
        said = not_installed(what, str(error.name), "report")
        raise ModuleNotFoundError(said) from None
    return page
