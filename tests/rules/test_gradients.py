"""Missing gradients are known from the trace."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from gradwatch.facts import CutKind
from gradwatch.records import Anatomy, Block, Cut, Finding, Schema, Variable
from gradwatch.rules.cuts import FROZEN, advice, reason
from gradwatch.rules.frozen import FrozenVariable
from gradwatch.rules.gradients import MissingGradient
from gradwatch.signals import Slot


def _judge(trainable: int, measured: int, *cuts: Cut) -> list[Finding]:
    variables = [
        Variable(f"v{i}", (2,), "float32", True, 1.0) for i in range(trainable)
    ]
    frozen = Variable("frozen", (2,), "float32", False, 1.0)
    slots = [Slot("variable_gradient_norm", f"v{i}") for i in range(measured)]
    schema = Schema((Slot("loss"), *slots), first_step=40)
    rule = MissingGradient()
    rule.begin(Anatomy(), Schema())
    found = list(rule.check(Block.empty(0)))
    facts = Anatomy(variables=(*variables, frozen), cuts=cuts)
    rule.begin(facts, schema)
    found += rule.check(Block.empty(len(schema.slots)))
    found += rule.check(Block.empty(len(schema.slots)))
    rule.begin(facts, schema)
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


ARGMAX = Cut(
    "argmax",
    ("v0", "v1"),
    "ArgMax",
    "",
    "/home/me/train.py",
    41,
    "my_loss",
    "said = tf.argmax(p, -1)",
)
UNUSED = Cut(
    "unused", ("v3",), "", "net/idle", "net.py", 7, "call", "self.idle(x)"
)


def test_the_cut_is_told() -> None:
    """Operation, function and line are in the message, all in the evidence."""
    (finding,) = _judge(2, 0, ARGMAX)
    assert finding.message == (
        "No trainable variable has a gradient: `ArgMax` in my_loss "
        "(train.py:41: `said = tf.argmax(p, -1)`) has no derivative (v0, v1)."
    )
    assert "cross-entropy" in finding.advice
    (told,) = finding.evidence["cuts"]
    assert told["file"] == "/home/me/train.py"
    assert told["variables"] == ["v0", "v1"]


def test_several_cuts_are_told_apart() -> None:
    """Each with its own variables, the one with most of them first."""
    stop = Cut("stop_gradient", ("v1", "v2"), "StopGradient", "net/detach")
    (finding,) = _judge(4, 1, UNUSED, stop)
    assert finding.message == (
        "No gradient reaches 3 of 4 trainable variables: `StopGradient` in "
        "layer net/detach stops it on the way from the loss (v1, v2); nothing "
        "that is computed from them reaches the loss; they are first used in "
        "layer net/idle, in call (net.py:7: `self.idle(x)`) (v3)."
    )
    assert finding.advice.startswith("Remove it")


def test_an_output_without_a_loss_is_named() -> None:
    """If the weights are of the layer that is called like it."""
    variables = (
        Variable("net/digit/kernel", (2,), "float32", True, 1.0),
        Variable("net/parity/kernel", (2,), "float32", True, 1.0),
    )
    loss = {"digit": "mse", "parity": None, "other": None}
    cut = Cut("unused", ("net/parity/kernel",))
    schema = Schema((Slot("variable_gradient_norm", "net/digit/kernel"),))
    rule = MissingGradient()
    rule.begin(Anatomy(variables=variables, cuts=(cut,), loss=loss), schema)
    (finding,) = rule.check(Block.empty(1))
    assert finding.message == (
        "No gradient reaches 1 of 2 trainable variables: output `parity` has "
        "no loss; nothing that is computed from them reaches the loss "
        "(net/parity/kernel)."
    )
    assert finding.advice.startswith("Give `parity` a loss")


def test_what_no_cut_explains_is_told() -> None:
    """Variables are not passed over."""
    (finding,) = _judge(8, 0, ARGMAX)
    assert finding.message.endswith(
        "(v0, v1); for v2, v3, v4, v5, v6 and 1 more no reason is known."
    )


def test_long_lines_are_shortened() -> None:
    """A message quotes 80 characters of a line, the evidence holds all."""
    (finding,) = _judge(2, 0, replace(ARGMAX, code="x" * 100))
    assert f"`{'x' * 77}...`" in finding.message
    assert finding.evidence["cuts"][0]["code"] == "x" * 100


def test_many_cuts_are_counted() -> None:
    """Three are told in words."""
    cuts = [Cut("round", (f"v{i}",), "Round") for i in range(5)]
    (finding,) = _judge(5, 0, *cuts)
    assert finding.message.endswith("(v2); and 2 more places.")
    assert len(finding.evidence["cuts"]) == 5


def test_what_the_step_leaves_out_is_no_missing_gradient() -> None:
    """`frozen_variable` tells it; what the step assigns lacks nothing."""
    cuts = [
        Cut("assigned", ("v0",)),
        Cut("unapplied", ("v1",)),
        Cut("unasked", ("v2",)),
    ]
    (finding,) = _judge(4, 0, *cuts)
    assert finding.evidence["missing"] == ["v3"]
    assert finding.evidence["cuts"] == []
    rule = FrozenVariable()
    variables = [Variable(f"v{i}", (2,), "float32", True, 1.0) for i in (0, 1)]
    facts = Anatomy(variables=tuple(variables), cuts=(cuts[0], cuts[1]))
    rule.begin(facts, Schema((Slot("loss"),), first_step=40))
    (told,) = rule.check(Block.empty(1))
    assert (told.subject, told.first_step) == ("v1", 40)
    assert told.message == (
        "1 of 2 trainable variables never change (v1): the train step hands "
        "their gradient to no optimizer."
    )
    assert "optimizer.apply" in told.advice
    assert list(rule.check(Block.empty(1))) == []


@pytest.mark.parametrize("kind", get_args(CutKind))
def test_every_kind_has_words(kind: CutKind) -> None:
    """Each kind of cut has a reason and an advice of its own."""
    cut = Cut(kind, ("v0",), "Operation")
    assert reason(cut)
    assert advice(cut) != MissingGradient.advice
    found = _judge(1, 0, cut)
    assert [f.advice for f in found] == [advice(cut)] * len(found)
    assert bool(found) == (kind not in (*FROZEN, "assigned"))
