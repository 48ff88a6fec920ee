from __future__ import annotations

from gradwatch.records import Finding, Severity
from gradwatch.report.axis import CELLS, Axis


def finding(step: int, severity: Severity = "info") -> Finding:
    """Returns a finding at a step."""
    return Finding("rule", severity, "", step, step, {}, (), "", "")


def test_cells_fill_the_axis() -> None:
    """Each lasts until the next step that was measured."""
    assert Axis(0, 3).edges([0, 1, 3]) == [0, 500, 1500, CELLS]
    assert Axis(100, 103).edges([102]) == [1000, CELLS]


def test_findings_that_are_near_share_a_pin() -> None:
    """It has the numbers of all, and the colour of the worst."""
    told = [finding(90, "warning"), finding(10), finding(91, "critical")]
    few = Axis(0, 99).pins(told)
    assert [(p.text, p.severity, p.place) for p in few] == [
        ("2", "info", 10.0),
        ("1\N{EN DASH}3", "critical", 90.0),
    ]
    assert "step 91: rule" in few[1].title


def test_steps_are_round() -> None:
    """A run of one step has a tick, too."""
    assert [t.text for t in Axis(0, 579).ticks][:2] == ["0", "100"]
    assert [(t.place, t.text) for t in Axis(5, 5).ticks] == [(0.0, "5")]
