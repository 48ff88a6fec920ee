"""How findings name things, the same in every rule."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed"]

_NAMED = 5


def listed(paths: Sequence[str]) -> str:
    """Returns the first few paths, and how many more there are."""
    named = ", ".join(paths[:_NAMED])
    more = len(paths) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
