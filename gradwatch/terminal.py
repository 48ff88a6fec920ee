"""What commands share: how they fail, where they print to, what a shell types.

Imports typer and rich only.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import typer
from rich.console import Console

__all__ = ["failed", "typed", "wide_console"]

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
