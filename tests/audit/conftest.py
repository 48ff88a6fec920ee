"""What tests of the audit share."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(autouse=True)
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search ends early: what is known of a fault is found before it."""
    module = importlib.import_module("gradwatch.audit.finite")
    monkeypatch.setattr(module, "_SEARCH_SECONDS", 0.05)
