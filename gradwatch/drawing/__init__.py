"""What pages and reports share: charts as paths, numbers as words, a style."""

from __future__ import annotations

from pathlib import Path

__all__ = ["STYLE", "TEMPLATES"]

_HERE = Path(__file__).parent

STYLE = _HERE / "static" / "drawing.css"
"""Style sheet of charts, findings and tiles; light and dark."""

TEMPLATES = _HERE / "templates"
"""Folder of `figures.html`: macros of charts for Jinja."""
