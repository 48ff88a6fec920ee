"""One fault, one finding."""

from __future__ import annotations

from gradwatch.records import Finding, Severity
from gradwatch.rules import default_rules
from gradwatch.rules.folding import _ORDER, Folding


def _finding(rule: str, step: int, severity: Severity = "warning") -> Finding:
    return Finding(rule, severity, "", step, step, {}, (), "", "")


def _told(*found: Finding) -> list[str]:
    folding = Folding()
    return [f.rule for finding in found for f in folding([finding])]


def test_symptoms_follow_causes() -> None:
    """What a fault explains is not told, whatever came first in a record."""
    dead = _finding("dead_units", 100)
    stalled = _finding("stalled_loss", 300)
    assert _told(dead, stalled) == ["dead_units"]
    folding = Folding()
    assert [f.rule for f in folding([stalled, dead])] == ["dead_units"]
    same = [_finding("stalled_loss", 100), dead]
    assert [f.rule for f in Folding()(same)] == ["dead_units"]


def test_a_cause_that_is_seen_later_is_told() -> None:
    """A symptom explains no cause."""
    stalled = _finding("stalled_loss", 100)
    dead = _finding("dead_units", 300)
    assert _told(stalled, dead) == ["stalled_loss", "dead_units"]


def test_what_is_worth_knowing_explains_nothing() -> None:
    """Only warnings and worse do."""
    slow = _finding("clipping_always", 100, "info")
    assert _told(slow, _finding("stalled_loss", 200)) == [
        "clipping_always",
        "stalled_loss",
    ]


def test_the_first_critical_finding_is_told() -> None:
    """It gets worse: that is news, once."""
    told = _told(
        _finding("update_too_large", 50),
        _finding("diverging_loss", 60, "critical"),
        _finding("exploding_gradient", 70, "critical"),
        _finding("nonfinite_loss", 80, "critical"),
    )
    assert told == ["update_too_large", "diverging_loss", "nonfinite_loss"]


def test_each_fault_of_the_set_up_is_told() -> None:
    """They are independent; so are rules of the user's."""
    names = ["missing_gradient", "target_mismatch", "my_rule", "lost_readings"]
    assert _told(*(_finding(name, 1) for name in names)) == names


def test_an_old_fault_explains_nothing_new() -> None:
    """A thousand steps later, and later than twice its own, it is over."""
    dead = _finding("dead_units", 100)
    assert _told(dead, _finding("loss_spike", 1150)) == ["dead_units"]
    assert len(_told(dead, _finding("loss_spike", 1300))) == 2
    late = _finding("dead_units", 50_000)
    assert len(_told(late, _finding("loss_spike", 90_000))) == 1


def test_every_rule_has_its_rank() -> None:
    """But those that are always told."""
    always = {"nonfinite_batch", "nonfinite_loss", "nonfinite_gradient"}
    always |= {"nonfinite_weight", "no_readings", "lost_readings"}
    always |= {"too_many_skips", "rolled_back"}
    assert {r.name for r in default_rules()} <= {*_ORDER, *always}


def test_a_scale_is_told_after_what_it_does_to_updates() -> None:
    """It is how the program is set up; small steps are what follows."""
    small = _finding("update_too_small", 383)
    scale = _finding("unscaled_input", 600)
    assert _told(small, scale) == ["update_too_small", "unscaled_input"]
    assert _told(scale, small) == ["unscaled_input"]
