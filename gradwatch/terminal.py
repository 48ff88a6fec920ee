"""What commands share: arguments, how they fail, print, and are typed.

Imports typer and rich only.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = [
    "Json",
    "JsonLines",
    "Logdirs",
    "RunDir",
    "failed",
    "typed",
    "wide_console",
]

Logdirs = Annotated[
    list[Path],
    typer.Option(
        "--logdir", help="Folder with run directories; may be repeated."
    ),
]
RunDir = Annotated[Path, typer.Argument(help="A run directory.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table.")
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print JSON, one finding a line.")
]

_WIDTH = 200  # characters; a pipe has no width of its own


def failed(message: str) -> typer.Exit:
    """Says on standard error what is wrong; returns what to raise: status 1."""
    typer.echo(message, err=True)
    return typer.Exit(1)


def wide_console() -> Console:
    """Returns standard output for tables: into a pipe, one line for each row.

    Colours and control characters are for terminals only.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def typed() -> str:
    """Returns what stands before a command of this environment in a shell.

    Nothing where the shell finds them, else their folder, `.venv/bin/` say.
    """
    folder = Path(sys.executable).parent
    found = shutil.which("gradwatch")
    if found and Path(found).parent == folder:
        return ""
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    return f"{folder}{os.sep}"
