"""Two runs side by side in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradwatch.compare.comparison import Comparison
from gradwatch.compare.sections import VERDICTS, Section, sections
from gradwatch.compare.story import story
from gradwatch.wording import plain

__all__ = ["show"]

_STYLES = {"different": "bold red", "unknown": "bold yellow"}
_ROWS = 15  # of a table, at most


def show(told: Comparison, console: Console) -> None:
    """Prints runs, verdict and tables, long ones cut."""
    for side, run in zip("AB", told.runs):
        console.print(Text(f"{side}  {plain(run)}"), soft_wrap=True)
    verdict = told.readings.verdict
    style = _STYLES.get(verdict, "bold green")
    words = (VERDICTS[verdict], style)
    said = Text.assemble("\n", words, " ", " ".join(story(told)))
    console.print(said, soft_wrap=not console.is_terminal)
    for section in sections(told):
        _print(section, console)


def _print(section: Section, console: Console) -> None:
    """Prints a table, or what there is to say instead."""
    title, rows = section.title, section.rows
    if not rows:
        if section.otherwise:
            console.print(Text(f"\n{title}: {section.otherwise}", "bold"))
        return
    console.print(Text(f"\n{title}", "bold"))
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(section.head):
        table.add_column(name, overflow="fold", no_wrap=i > 0)
    fits = section.whole or len(rows) <= _ROWS + 1
    shown = rows if fits else rows[:_ROWS]
    for row in shown:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.print(table)
    if len(shown) < len(rows):
        console.print(Text(f"and {len(rows) - len(shown)} more", "dim"))
