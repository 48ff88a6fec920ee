"""Missing gradients are known from the trace."""

from __future__ import annotations

import pytest

from gradwatch.records import Anatomy, Block, Finding, Schema, Variable
from gradwatch.rules.gradients import MissingGradient
from gradwatch.signals import Slot


def _judge(trainable: int, measured: int) -> list[Finding]:
    variables = [
        Variable(f"v{i}", (2,), "float32", True, 1.0) for i in range(trainable)
    ]
    frozen = Variable("frozen", (2,), "float32", False, 1.0)
    slots = [Slot("variable_gradient_norm", f"v{i}") for i in range(measured)]
    schema = Schema((Slot("loss"), *slots), first_step=40)
    rule = MissingGradient()
    rule.begin(Anatomy(), Schema())
    found = list(rule.check(Block.empty(0)))
    rule.begin(Anatomy(variables=(*variables, frozen)), schema)
    found += rule.check(Block.empty(len(schema.slots)))
    found += rule.check(Block.empty(len(schema.slots)))
    rule.begin(Anatomy(variables=(*variables, frozen)), schema)
    return found + list(rule.check(Block.empty(len(schema.slots))))


@pytest.mark.parametrize(
    ("measured", "severity", "cause"),
    [(0, "critical", ("loss_not_differentiable",)), (6, "warning", ())],
)
def test_missing_ones_are_named_once(
    measured: int, severity: str, cause: tuple[str, ...]
) -> None:
    """All missing is critical, some are a warning; told once a run."""
    (finding,) = _judge(8, measured)
    assert finding.severity == severity
    assert finding.causes == cause
    assert finding.subject == f"v{measured}"
    assert finding.first_step == 40
    assert finding.evidence["missing"] == [f"v{i}" for i in range(measured, 8)]


def test_frozen_variables_miss_nothing() -> None:
    """A variable that is not trainable needs no gradient."""
    assert _judge(3, 3) == []
