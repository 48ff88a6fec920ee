"""Numbers and times, as people read them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

__all__ = ["age", "count", "duration", "number", "spans", "utc"]

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def number(value: float | str | None) -> str:
    """Returns a measured number with four digits."""
    if value is None:
        return "-"
    value = float(value)
    if math.isfinite(value):
        return f"{value:.4g}"
    return "NaN" if math.isnan(value) else ("Inf" if value > 0 else "-Inf")


def count(value: int) -> str:
    """Returns a count, its digits in groups of three."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Returns a time in its two largest units."""
    if seconds is None:
        return "-"
    for i, (unit, length) in enumerate(_UNITS):
        if seconds >= length:
            smaller, part = [*_UNITS, ("s", 1)][i + 1]
            rest = int(seconds % length // part)
            whole = f"{int(seconds // length)} {unit}"
            return f"{whole} {rest} {smaller}" if rest else whole
    return f"{max(seconds, 0.0):.0f} s"


def age(seconds: float) -> str:
    """Returns how long ago, in the largest unit that fits."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0.0):.0f} s ago"


def spans(text: str) -> list[tuple[str, bool]]:
    """Returns the parts of a sentence, and whether each was in back-ticks.

    One that is not closed stays as it is.
    """
    parts = re.split(r"`([^`]+)`", text)
    return [(part, bool(i % 2)) for i, part in enumerate(parts) if part]


def utc(seconds: float) -> str:
    """Returns a Unix time as a date and time of day in UTC."""
    try:
        told = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return "-"
    return told.strftime("%Y-%m-%d %H:%M:%S UTC")
