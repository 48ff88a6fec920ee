"""`gradwatch report`: a run as one file to send around."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from gradwatch.errors import GradWatchError
from gradwatch.report import Report
from gradwatch.terminal import RunDir, failed

if TYPE_CHECKING:
    from gradwatch.report.contents import Tell

__all__ = ["Format", "register", "report"]

_QUIET = 0.7  # seconds before a bar is shown


class Format(StrEnum):
    """How a report is written."""

    html = "html"
    markdown = "markdown"


_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write, `-` = print it; report.html or report.md where "
        "nothing is said.",
        show_default=False,
    ),
]
_Format = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="What to write; by default what the file is called, else html.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command(
        epilog="Examples:\n\ngradwatch report RUN_DIR -o digits.html\n\n"
        "gradwatch report RUN_DIR --format markdown -o - | "
        "gh pr comment --body-file -"
    )(report)


def report(
    run_dir: RunDir, output: _Output = None, format: _Format = None
) -> None:
    """Write a run as one file to send around: HTML, or Markdown."""
    chosen = format or _format(output)
    ending = "html" if chosen is Format.html else "md"
    path = output or Path(f"report.{ending}")
    try:
        with _bar() as tell:
            made = Report(run_dir, tell)
            told = made.html() if ending == "html" else made.markdown()
        if str(path) == "-":
            typer.echo(told, nl=False)
            return
        path.write_text(told, encoding="utf-8")
    except (GradWatchError, ModuleNotFoundError, OSError) as error:
        raise failed(str(error)) from None
    typer.echo(f"Written: {path} ({len(told.encode()) / 1e6:.1f} MB)")


def _format(output: Path | None) -> Format:
    markdown = output is not None and output.suffix in (".md", ".markdown")
    return Format.markdown if markdown else Format.html


@contextmanager
def _bar() -> Iterator[Tell]:
    """Yields what shows progress, on a terminal, of what takes longer."""
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task("Reading", total=1.0)
    begun = time.monotonic()

    def tell(share: float) -> None:
        if console.is_terminal and time.monotonic() - begun > _QUIET:
            bar.start()
            bar.update(task, completed=share)

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
