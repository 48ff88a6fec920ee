"""What commands share: how they fail, and where they print to.

Imports typer and rich only.
"""

from __future__ import annotations

import typer
from rich.console import Console

__all__ = ["failed", "wide_console"]

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
