"""Curves as pictures: SVG for notebooks, block characters for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from gradwatch.audit.report import Curve
from gradwatch.drawing.charts import chart
from gradwatch.drawing.ticks import round_numbers
from gradwatch.drawing.words import number

__all__ = ["sparks", "svg"]

_WIDTH, _HEIGHT, _LEFT, _BELOW = 260, 110, 52, 18
_BLOCKS = "▁▂▃▄▅▆▇█"
_CELLS = 40


def svg(curve: Curve) -> str:
    """Returns value and derivative of a curve, side by side, as SVG."""
    parts = []
    shift = 0
    for title, row in _rows(curve):
        parts.append(f'<g transform="translate({shift} 0)">')
        parts += _axes(curve, title, row)
        parts.append("</g>")
        shift += _LEFT + _WIDTH + 16
    height = _HEIGHT + 2 * _BELOW
    return (
        f'<svg viewBox="0 0 {shift} {height}" width="{shift}" role="img" '
        f'aria-label="{escape(_title(curve))}" font-size="10" '
        'font-family="sans-serif" fill="currentColor" '
        f'style="max-width:100%">{"".join(parts)}</svg>'
    )


def sparks(curve: Curve) -> Iterator[str]:
    """Yields lines of block characters: value and derivative."""
    for title, row in _rows(curve):
        stride = max(len(row) // _CELLS, 1)
        shown = row[::stride]
        low, high = _ends(row)
        span = (high - low) or 1.0
        blocks = "".join(
            _BLOCKS[round(7 * (v - low) / span)] if math.isfinite(v) else "!"
            for v in shown
        )
        yield f"{title} {blocks} {number(low)} to {number(high)}"


def _rows(curve: Curve) -> Iterator[tuple[str, list[float]]]:
    yield _title(curve), [float(v) for v in curve.value]
    yield "derivative", [float(v) for v in curve.slope]


def _title(curve: Curve) -> str:
    given = f", {curve.given}" if curve.given else ""
    return f"value over {curve.name}{given}"


def _ends(row: Sequence[float]) -> tuple[float, float]:
    finite = [v for v in row if math.isfinite(v)] or [0.0]
    return min(finite), max(finite)


def _axes(curve: Curve, title: str, row: list[float]) -> Iterator[str]:
    """A line, the frame around it, and numbers beside it."""
    places = range(len(row))
    low, high = _ends(row)
    # An even axis: a line that crosses zero has no logarithm.
    flat = [v - low for v in row]
    drawn = chart(places, {"": flat}, width=_WIDTH, height=_HEIGHT)
    yield f'<text x="{_LEFT}" y="{_BELOW - 6}">{escape(title)}</text>'
    yield f'<g transform="translate({_LEFT} {_BELOW})">'
    yield (
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        'stroke="currentColor" opacity=".25"/>'
    )
    if drawn is not None:
        yield (
            f'<path d="{drawn.marks}" fill="none" stroke="#c62828" '
            f'opacity=".5"/><path d="{drawn.lines[0].path}" fill="none" '
            'stroke="#0277bd" stroke-width="1.5"/>'
        )
    for value in round_numbers(low, high, 4):
        share = (high - value) / (high - low) if high > low else 0.5
        y = _HEIGHT * (0.04 + 0.92 * share)
        yield f'<text x="-4" y="{y + 3:.1f}" text-anchor="end">'
        yield f"{number(value)}</text>"
    first, last = float(curve.x[0]), float(curve.x[-1])
    for value in round_numbers(first, last, 5):
        x = _WIDTH * (value - first) / (last - first)
        yield f'<text x="{x:.1f}" y="{_HEIGHT + 12}" text-anchor="middle">'
        yield f"{number(value)}</text>"
    yield "</g>"
