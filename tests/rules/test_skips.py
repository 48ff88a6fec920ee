"""Too many skipped steps: the rule counts as the guard does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gradwatch.records import Anatomy, Finding
from gradwatch.rules.skips import TooManySkips
from gradwatch.signals import Slot
from tests.rules.synthetic import judged


def _judge(flags: Any, most: int, cuts: Sequence[int] = ()) -> list[Finding]:
    columns = {Slot("nonfinite"): flags, Slot("update_dropped"): flags}
    anatomy = Anatomy(max_skips=most)
    return judged(TooManySkips(), columns, anatomy=anatomy, cuts=cuts)


@pytest.mark.parametrize("cuts", [(), (4,), range(1, 12)])
def test_one_more_than_allowed_in_a_row(cuts: Sequence[int]) -> None:
    """Told once, at the step at which the guard stops; what follows is not."""
    flags = np.r_[0, 1, 1, 0, np.ones(8)]
    (finding,) = _judge(flags, 3, cuts)
    assert (finding.first_step, finding.last_step) == (4, 7)
    assert _judge(flags[:7], 3, cuts) == []


def test_one_more_than_allowed_in_all() -> None:
    """Ten times as many as in a row, wherever they are."""
    flags = np.tile([1, 0], 12)
    (finding,) = _judge(flags, 1)
    assert finding.last_step == 20
    assert _judge(flags, 2) == []


def test_other_policies_skip_nothing() -> None:
    """Where the guard stops at the first bad step there is no limit."""
    assert _judge(np.ones(40), 0) == []
