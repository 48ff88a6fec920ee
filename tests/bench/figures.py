"""Figures: comparisons with their spread, verdicts, tables, facts.

Pure but for `facts` and `save`; needs numpy only.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Estimate", "Report", "estimate", "facts", "save", "table", "versus"]

_RESAMPLED = 2000


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def meets(self, target: float) -> bool:
        """Whether the measurement leaves room for `target` being met."""
        return self.low <= target

    def text(self, target: float | None = None) -> str:
        """Returns value and interval; the verdict too if there is a target."""
        text = f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"
        if target is None:
            return text
        return text + (" pass" if self.meets(target) else " miss")


class Report(NamedTuple):
    """What a measurement says.

    Attributes:
        text: Markdown.
        misses: one line for each target that is not met.
    """

    text: str
    misses: list[str]


def estimate(
    ours: Sequence[float],
    plain: Sequence[float],
    compare: Any = np.divide,
) -> Estimate:
    """Compares the medians of two arms that were measured in turns.

    The interval is a percentile bootstrap (Efron 1979). It draws rounds, not
    single figures: what slowed a round down, slowed both arms down.

    Args:
        ours: one figure a round, `[rounds]`.
        plain: the figures of the same rounds, `[rounds]`.
        compare: `np.divide` for their ratio, `np.subtract` for how much more.
    """
    random = np.random.default_rng(0)
    picks = random.integers(0, len(ours), (_RESAMPLED, len(ours)))
    picks = np.concatenate([[np.arange(len(ours))], picks])
    medians = (np.median(np.array(arm)[picks], axis=1) for arm in (ours, plain))
    found = compare(*medians)
    return Estimate(float(found[0]), *np.percentile(found[1:], [2.5, 97.5]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns also line up as plain text."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    rule = ["-" * width for width in widths]
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths))
        for row in (head, rule, *rows)
    )
    return "\n".join(f"| {line} |" for line in lines)


def versus(
    head: Sequence[str],
    rows: Sequence[tuple[Sequence[str], dict[str, Any]]],
    unit: str,
    target: float,
    compare: Any = np.divide,
) -> Report:
    """Returns a table of plain and watched runs against one target.

    Args:
        head: of the columns that say what was run.
        rows: their cells, and the figures of `plain` and `watched` runs.
        unit: of the figures.
        target: for their ratio, or what `compare` gives.
        compare: see `estimate`.
    """
    lines, misses = [], []
    for cells, arms in rows:
        pair = [arms["watched"], arms["plain"]]
        found = estimate(pair[0], pair[1], compare)
        medians = [f"{np.median(arm):.2f} {unit}" for arm in reversed(pair)]
        lines.append([*cells, *medians, found.text(target)])
        if not found.meets(target):
            misses.append(f"{', '.join(cells)}: {found.text()}, not {target}")
    titles = [*head, "plain", "watched", f"target {target:g}"]
    return Report(table(titles, lines), misses)


def facts() -> dict[str, str]:
    """Returns what one must know to read figures: date, cores, versions."""
    packages = ("gradwatch", "keras", "tensorflow", "tensorflow-cpu", "numpy")
    found = {"date": datetime.date.today().isoformat()}
    found["cores"] = str(len(os.sched_getaffinity(0)))
    found["python"] = platform.python_version()
    for package in packages:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found


def save(path: Path, results: Any) -> None:
    """Writes raw figures and `facts` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"facts": facts(), "results": results}, indent=1)
    path.write_text(text + "\n")
