"""What tests of the audit share."""

from __future__ import annotations

import importlib

import pytest

_SECONDS = 60.0


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few examples end a search, and no clock ends it or the places.

    What is known of a fault is found before the search, and a machine that
    does something else for a second finds as much as any other.
    """
    finite = importlib.import_module("gradwatch.audit.finite")
    search = importlib.import_module("gradwatch.audit.search")
    monkeypatch.setattr(finite, "_SECONDS", _SECONDS)
    monkeypatch.setattr(finite, "_SEARCH_SECONDS", _SECONDS)
    monkeypatch.setattr(search, "_EXAMPLES", 8)
