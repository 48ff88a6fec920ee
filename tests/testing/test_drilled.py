"""Drills that rules find, trained in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradwatch.testing.drilled import FAULTS, train
from gradwatch.testing.drills import DRILLS


def test_every_drill_has_its_fault() -> None:
    """The table and the faults belong together."""
    assert set(FAULTS) == set(DRILLS)
    for name, make in FAULTS.items():
        assert (make(30, 1.0) is None) == (name == "healthy")


@pytest.mark.parametrize(
    "name",
    ["healthy", "stalled_loss"],
)
def test_rules_find_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first finding is the right one; the process tells what it does."""
    drill = DRILLS[name]
    watch = train(drill, tmp_path, drill.at_step, 0.2)
    found = [f.rule for f in watch.findings if f.severity != "info"]
    assert tuple(found[:1]) == drill.rules
    assert watch.state["phase"] == drill.state
    told = json.loads(capsys.readouterr().out)
    assert told == {"run": str(watch.path)}
