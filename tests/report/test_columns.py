from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.report.columns import LIMIT, Columns
from gradwatch.signals import Slot

LOSS, NORM = Slot("loss"), Slot("gradient_norm")


@given(
    steps=st.sets(st.integers(0, 5000), min_size=1, max_size=200),
    origin=st.integers(0, 10**6),
    seed=st.integers(0, 9),
)
def test_columns_hold_what_numpy_finds(
    steps: set[int], origin: int, seed: int
) -> None:
    """In any order of the Blocks; what is not finite is never hidden."""
    random = np.random.default_rng(seed)
    rows = np.array(sorted(steps)) + origin
    values = random.normal(size=(len(rows), 1)).astype(np.float32)
    values[random.random(len(rows)) < 0.1] = random.choice([np.nan, np.inf])
    columns = Columns(origin)
    parts = np.array_split(np.arange(len(rows)), 5)
    for i in random.permutation(5):
        columns.add(rows[parts[i]], [LOSS], values[parts[i]])
    width = columns.width
    assert (rows[-1] - origin) // width < LIMIT
    assert width == 1 or (rows[-1] - origin) // (width // 2) >= LIMIT
    places = (rows - origin) // width
    folded = columns.of("loss")[""]
    for i, place in enumerate(np.unique(places)):
        of = values[places == place, 0].astype(np.float64)
        finite = of[np.isfinite(of)]
        mean = folded.means[i]
        assert mean is not None
        if len(finite) < len(of):
            assert np.isnan(mean)
        else:
            np.testing.assert_allclose(mean, finite.mean(), atol=1e-12)
        if len(finite):
            assert folded.lows[i] == finite.min()
            assert folded.highs[i] == finite.max()
        else:
            assert folded.lows[i] is None
        at = columns.steps[i]
        np.testing.assert_allclose(at, rows[places == place].mean())


def test_what_was_not_measured_is_none() -> None:
    """A slot that a later Schema brings is no zero before it."""
    columns = Columns(0)
    columns.add(np.array([0, 1]), [LOSS], np.ones((2, 1), np.float32))
    columns.add(np.array([2]), [LOSS, NORM], np.zeros((1, 2), np.float32))
    assert columns.of("loss")[""].means == [1.0, 1.0, 0.0]
    assert columns.of("gradient_norm")[""].means == [None, None, 0.0]
    assert columns.of("step_time") == {}


def test_nothing() -> None:
    """No rows are no columns."""
    columns = Columns(7)
    columns.add(np.zeros(0, np.int64), [], np.zeros((0, 0), np.float32))
    assert columns.steps == []
