"""What the audit finds in code of which the truth is known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import pytest

from gradwatch import AuditReport, audit
from gradwatch.audit.domain import Domain
from tests.audit.correct import CORRECT
from tests.audit.planted import PLANTED
from tests.audit.records import Correct, Planted

_Case = TypeVar("_Case", Planted, Correct)

# Told as information, under another name: the gradient leads downhill without
# the part that a `stop_gradient` holds back; and TensorFlow's own `cumprod` is
# wrong at zeros alone.
MILDER = {
    "backward_swish": "detached_part",
    "backward_relative_error": "detached_part",
    "backward_transmittance": "wrong_at_point",
}


def audited(case: Planted | Correct) -> AuditReport:
    """The report on a case, from what its user has to tell."""
    keras.utils.set_random_seed(0)
    made = case.make()
    stated: dict[str, Any] | None = None
    if case.inputs is not None:
        stated = {
            name: Domain(shape, "ids", low, high)
            if isinstance(low, int)
            else (shape, (low, high))
            for name, (shape, low, high) in case.inputs.items()
        }
    return audit(getattr(made, "function", made), inputs=stated)


def _some(cases: Sequence[_Case]) -> list[Any]:
    """All of them, of which a fixed fifth belongs to every test run."""
    number = {c.name: zlib.crc32(c.name.encode()) for c in cases}
    later = pytest.mark.acceptance
    return [
        pytest.param(c, id=c.name, marks=[later] if number[c.name] % 5 else [])
        for c in cases
    ]


@pytest.mark.parametrize("case", _some(PLANTED))
def test_faults_are_found(case: Planted) -> None:
    """By their names, at their lines."""
    expected = MILDER.get(case.name, case.expected)
    found = [f for f in audited(case).findings if f.check == expected]
    assert found
    if case.line:
        lines = [f.source.text for f in found if f.source]
        assert any(case.line in text for text in lines), lines


@pytest.mark.parametrize("case", _some(CORRECT))
def test_correct_code_is_left_alone(case: Correct) -> None:
    """Nothing that would fail a test."""
    report = audited(case)
    assert report.worst in (None, "info"), str(report)
