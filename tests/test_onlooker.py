"""Drills, looked at from outside."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from gradwatch.onlooker import Seen, State, look_on
from gradwatch.records import Finding
from gradwatch.sinks.findings import read_findings
from gradwatch.testing.drills import DRILLS


def _said(rule: str, step: int, severity: Any = "critical") -> Finding:
    return Finding(rule, severity, "", step, step, {}, (), "", "")


def test_what_passes() -> None:
    """The fault came, a right finding is not older, the state was seen."""
    seen = Seen(DRILLS["nan_batch"], fault={"step": 100, "time": 0.0})
    seen.states += [State("running", "", None), State("failed", "nonfinite", 1)]
    assert not seen.passed
    seen.findings = [(_said("nonfinite_batch", 50), 1.0)]
    assert not seen.passed
    seen.findings.append((_said("nonfinite_batch", 100), 1.0))
    assert seen.passed
    seen.fault = {}
    assert not seen.passed


def test_the_control_passes_without_a_warning() -> None:
    """Findings of severity info are no alarm."""
    seen = Seen(DRILLS["healthy"], states=[State("finished", "", None)])
    seen.findings = [(_said("slow_loss", 9, "info"), None)]
    assert seen.passed
    seen.findings.append((_said("loss_spike", 9, "warning"), None))
    assert not seen.passed


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """The service calls it lost, 45 s after its last sign of life.

    The clock by which it is judged goes 40 s ahead.
    """
    seen = Seen(DRILLS["kill"])
    said = list(
        look_on(seen, tmp_path, 100, 0.0, clock=lambda: time.time() + 40)
    )
    assert seen.passed, seen.error
    assert [state.name for state in seen.states][-2:] == ["running", "lost"]
    assert seen.fault["step"] == 100
    assert said[-1].endswith(" s  lost")
    state = json.loads(Path(seen.run, "state.json").read_text())
    assert state["run"]["labels"] == {"drill": "kill"}
    assert state["phase"] == "running"


def test_a_training_that_hangs(tmp_path: Path) -> None:
    """The service calls it stalled while it hangs, and then running again."""
    seen = Seen(DRILLS["hang"])
    # A run older than 10 s gives a sign of life every 5 s only.
    list(look_on(seen, tmp_path, 100, 8.0, stalled_after=1.5))
    assert seen.passed, seen.error
    names = [state.name for state in seen.states]
    assert names[names.index("stalled") - 1] == "running"
    assert names[-1] == "finished"
    stalled = seen.states[names.index("stalled")]
    assert 1.4 <= (stalled.seconds or 0.0) < 8.0
    assert read_findings(seen.run) == []
