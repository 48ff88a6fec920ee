"""Two runs side by side in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradwatch.compare.comparison import Comparison
from gradwatch.compare.parting import Difference
from gradwatch.compare.setup import Pair
from gradwatch.compare.sides import Told
from gradwatch.compare.story import story, text
from gradwatch.wording import plain

__all__ = ["show"]

_VERDICTS = {
    "same": ("The same.", "bold green"),
    "rounding": ("The same but for rounding.", "bold green"),
    "different": ("Different.", "bold red"),
    "unknown": ("Nothing can be compared.", "bold yellow"),
}
_SIDES = ("", "A", "B")
_ROWS = 15  # of a table, at most
_POINTS = 12  # steps of the curves
_FACTOR = 1.01  # gradients that differ by less are left out


def show(told: Comparison, console: Console) -> None:
    """Prints verdict, set-up, parting, numbers, gradients, findings, curves."""
    for side, run in zip("AB", told.runs):
        console.print(Text(f"{side}  {plain(run)}"), soft_wrap=True)
    found = told.readings
    words, style = _VERDICTS[found.verdict]
    said = Text.assemble("\n", (words, style), " ", " ".join(story(told)))
    console.print(said, soft_wrap=not console.is_terminal)
    _print(console, "Set-up", _SIDES, _pairs(told.setup), "the same")
    parted = found.step >= 0
    title = f"Step {found.step if parted else found.unequal}"
    title += ", causes before effects" if parted else ", all by rounding"
    head: tuple[str, ...] = ("reading", "of", "A", "B", "differ by")
    _print(console, title, head, map(_difference, found.differences))
    _print(console, "Side by side", _SIDES, _pairs(told.totals), rows_shown=100)
    shown = [pair for pair in told.gradients if _apart(pair)]
    title = "Gradient norms of variables, medians"
    _print(console, title, _SIDES, _pairs(shown))
    head = ("rule", "of", "A, from step", "B, from step")
    _print(console, "Findings", head, map(_finding, told.findings), "none")
    if found.verdict != "same":
        _curves(told, console)


def _print(
    console: Console,
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    otherwise: str = "",
    rows_shown: int = _ROWS,
) -> None:
    """Prints a table of its first rows, or what there is to say instead."""
    listed = list(rows)
    if not listed:
        if otherwise:
            console.print(Text(f"\n{title}: {otherwise}", "bold"))
        return
    console.print(Text(f"\n{title}", "bold"))
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, overflow="fold", no_wrap=i > 0)
    shown = listed if len(listed) <= rows_shown + 1 else listed[:rows_shown]
    for row in shown:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.print(table)
    if len(shown) < len(listed):
        console.print(Text(f"and {len(listed) - len(shown)} more", "dim"))


def _pairs(pairs: Iterable[Pair]) -> Iterator[Sequence[str]]:
    for pair in pairs:
        yield pair.name, *map(text, pair.values)


def _difference(each: Difference) -> Sequence[str]:
    a, b = map(text, each.values)
    if a == b:  # not to four digits
        a, b = (f"{value:.9g}" for value in each.values)
    by = f"{each.relative:.2g}" if math.isfinite(each.relative) else "-"
    return each.signal, each.subject, a, b, by


def _apart(pair: Pair) -> bool:
    a, b = pair.values
    return a != b and not max(a, b) < _FACTOR * min(a, b)


def _finding(each: Told) -> Sequence[str]:
    return each.rule, each.subject, *map(text, each.steps)


def _curves(told: Comparison, console: Console) -> None:
    """Prints what differs over the steps, at some of them."""
    series = {
        signal.replace("_", " "): values
        for signal, values in told.curves.series.items()
        if values[0] != values[1]
    }
    steps = told.curves.steps
    places = np.linspace(0, len(steps) - 1, min(_POINTS, len(steps)))
    rows = [
        [str(steps[i]), *(text(side[i]) for v in series.values() for side in v)]
        for i in places.round().astype(int).tolist()
    ]
    head = ("step", *(f"{name} {side}" for name in series for side in "AB"))
    _print(console, "Over the steps", head, rows)
