"""The step axis that all figures of a report share, and what stands on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradwatch.drawing.charts import uprights
from gradwatch.drawing.ticks import round_numbers
from gradwatch.drawing.words import count
from gradwatch.records import SEVERITIES, Epoch, Finding, Severity

__all__ = ["CELLS", "HEIGHT", "WIDTH", "Axis", "Pin", "Tick"]

WIDTH = 720
"""Of the view box of a chart."""

HEIGHT = 200
"""Of the view box of a chart."""

CELLS = 2000
"""Width of the view box of a heat strip."""

_TICKS = 6
_NEAR = 2.5  # percent of the axis within which findings share a pin


class Tick(NamedTuple):
    """A number beside an axis.

    Attributes:
        place: percent of the axis, from its beginning.
        text: what to write.
    """

    place: float
    text: str


class Pin(NamedTuple):
    """Findings that began at about the same step.

    Attributes:
        place: percent of the axis.
        text: their numbers in the report, `2` or `2-4`.
        number: of the first of them.
        severity: the highest of them.
        title: steps and rules.
    """

    place: float
    text: str
    number: int
    severity: Severity
    title: str


class Axis:
    """Steps from the left to the right.

    Args:
        first: step at the left.
        last: step before the right end, so that its cell has a width.
    """

    def __init__(self, first: int, last: int) -> None:
        self.ends = (first, max(last, first) + 1)

    def place(self, step: float) -> float:
        """Returns percent of the axis."""
        first, end = self.ends
        return min(max(100 * (step - first) / (end - first), 0.0), 100.0)

    @property
    def ticks(self) -> list[Tick]:
        """A few round steps."""
        numbers = round_numbers(self.ends[0], self.ends[1] - 1, _TICKS)
        steps = sorted({int(n) for n in numbers if n == int(n)})
        return [Tick(self.place(step), count(step)) for step in steps]

    def edges(self, steps: Sequence[float]) -> list[int]:
        """Returns where the cell of each step begins, and where the last ends.

        Each lasts until the next one.
        """
        begins = [round(CELLS * self.place(step) / 100) for step in steps]
        return [*begins, CELLS]

    def uprights(self, steps: Iterable[int]) -> str:
        """Returns a path of lines across a chart."""
        return uprights(sorted(set(steps)), WIDTH, HEIGHT, self.ends)

    def epochs(self, epochs: Iterable[Epoch]) -> str:
        """Returns a path of short lines where epochs end."""
        steps = sorted({epoch.step for epoch in epochs})
        return uprights(steps, WIDTH, 1, self.ends)

    def pins(self, findings: Sequence[Finding]) -> list[Pin]:
        """Returns where findings began, those that are near in one pin."""
        numbered = sorted(
            enumerate(findings, 1), key=lambda each: each[1].first_step
        )
        groups: list[list[tuple[int, Finding]]] = []
        last = -_NEAR
        for each in numbered:
            place = self.place(each[1].first_step)
            if place - last < _NEAR and groups:
                groups[-1].append(each)
            else:
                groups.append([each])
                last = place
        return [self._pin(group) for group in groups]

    def _pin(self, group: Sequence[tuple[int, Finding]]) -> Pin:
        numbers = sorted(number for number, _ in group)
        low, high = numbers[0], numbers[-1]
        worst = max((f.severity for _, f in group), key=SEVERITIES.index)
        told = (f"step {f.first_step}: {f.rule}" for _, f in group)
        return Pin(
            self.place(group[0][1].first_step),
            f"{low}" if low == high else f"{low}\N{EN DASH}{high}",
            low,
            worst,
            "; ".join(told),
        )
