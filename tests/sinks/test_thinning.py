"""Thinning: the budget holds, windows are complete, scalars keep their rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.records import Block, Finding, Run, Schema
from gradwatch.signals import Slot
from gradwatch.sinks.readings import read_blocks
from gradwatch.sinks.tensorboard import TensorBoardSink
from gradwatch.sinks.thinning import (
    FINDINGS,
    WINDOW,
    Pace,
    Recorder,
    stride,
)

RUN = Run("run", "run", 1000.0, "host", {}, {})
SCHEMA = Schema(
    (Slot("loss"), *(Slot("variable_gradient_norm", f"v{i}") for i in range(9)))
)


def block(first: int, rows: int, columns: int = 10) -> Block:
    """Returns a Block of random values, which do not compress."""
    steps = np.arange(first, first + rows)
    values = np.random.default_rng(first).lognormal(size=(rows, columns))
    return Block(
        steps,
        1000.0 + steps / 50,
        values.astype(np.float32),
        np.zeros(rows, np.bool_),
    )


def finding(first: int, last: int | None = None) -> Finding:
    """Returns a finding about the steps `first` to `last`."""
    last = first if last is None else last
    return Finding("rule", "warning", "v0", first, last, {}, (), "Bad.", "Fix.")


def window(*centres: int) -> set[int]:
    """Returns the steps that must be complete around `centres`."""
    return {
        step
        for centre in centres
        for step in range(max(centre - WINDOW, 0), centre + WINDOW + 1)
    }


@pytest.mark.parametrize(
    ("used", "expected"),
    [(0, 1), (63, 1), (64, 2), (111, 2), (112, 4), (148, 8), (256, 2**19)],
)
def test_stride_doubles_with_each_quarter(used: int, expected: int) -> None:
    """The stride doubles at 64 of 256 bytes, at 48 of the rest, and so on."""
    assert stride(used, 256) == expected


def test_cadence_and_stride_choose_by_step_number() -> None:
    """A row is recorded if cadence times stride divides its step."""
    got = Recorder(5).record(SCHEMA, block(0, 100), 4)
    assert got.steps.tolist() == [0, 20, 40, 60, 80]


@given(
    st.lists(st.integers(0, 90), min_size=1),
    st.sampled_from([1, 2, 4, 8, 16, 64]),
    st.sets(st.integers(0, 2000)),
)
def test_xray_rows_thin_out_last(
    sizes: list[int], stride: int, xrays: set[int]
) -> None:
    """However Blocks are cut, all are recorded up to stride 8, then fewer."""
    recorder, got, first = Recorder(10**6), list[int](), 0
    for size in sizes:
        rows = block(first, size)
        rows.xray[:] = np.isin(rows.steps, list(xrays))
        got += recorder.record(SCHEMA, rows, stride).steps.tolist()
        first += size
    seen = sorted(step for step in xrays if step < first)
    cadence = {0} if first else set()
    assert set(got) == set(seen[:: max(stride // 8, 1)]) | cadence


@given(
    st.lists(st.integers(1, 90), min_size=1),
    st.integers(1, 50),
    st.lists(st.integers(0, 2000), max_size=3),
)
def test_windows_are_complete(
    sizes: list[int], cadence: int, found: list[int]
) -> None:
    """However Blocks are cut, windows are complete and no row comes twice."""
    recorder, got, first = Recorder(cadence), list[int](), 0
    waiting = sorted(found)
    for size in sizes:
        while waiting and waiting[0] < first + size:
            for _, late in recorder.add(finding(waiting.pop(0))):
                got += late.steps.tolist()
        recorded = recorder.record(SCHEMA, block(first, size), 1)
        got += recorded.steps.tolist()
        first += size
    found = [step for step in found if step < first]
    need = {s for s in window(*found) if s < first}
    need |= set(range(0, first, cadence))
    assert len(got) == len(set(got))
    assert set(got) == need


def test_a_finding_about_the_past_brings_its_rows_back() -> None:
    """Rows around first and last step are written when the finding comes."""
    recorder = Recorder(1000)
    for first in range(0, 960, 64):
        recorder.record(SCHEMA, block(first, 64), 1)
    late = recorder.add(finding(700, 959))
    steps = [s for _, b in late for s in b.steps.tolist()]
    assert steps == sorted(s for s in window(700, 959) if s < 960)


def test_only_the_first_findings_have_windows() -> None:
    """After a hundred findings, one more brings no window."""
    recorder = Recorder(10**6)
    for _ in range(FINDINGS):
        recorder.add(finding(5))
    recorder.record(SCHEMA, block(1000, 64), 1)
    assert recorder.add(finding(1030)) == []


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=200),
    st.integers(1, 300),
    st.sets(st.integers(0, 199), max_size=5),
)
def test_pace_keeps_the_rate(
    gaps: list[float], cost: int, forced: set[int]
) -> None:
    """Values per second stay below the rate; the first row is always shown."""
    times = 1000.0 + np.cumsum(gaps)
    force = np.array([i in forced for i in range(len(times))])
    chosen = Pace(200).choose(times, force, cost)
    assert chosen[0]
    assert chosen[force].all()
    shown = chosen.sum() * cost
    allowed = 200 * (times[-1] - times[0]) + cost * (1 + force.sum())
    assert shown <= allowed + 1e-6 * shown


def test_pace_goes_on_when_the_clock_is_set_back() -> None:
    """A clock set back by a day does not stop the scalars for a day."""
    pace = Pace(10)
    no = np.zeros(3, np.bool_)
    pace.choose(np.array([1e6, 1e6 + 1, 1e6 + 2]), no, 10)
    chosen = pace.choose(np.array([9e5, 9e5 + 1, 9e5 + 2]), no, 10)
    assert chosen.tolist() == [False, True, True]


def test_a_long_run_stays_in_its_budget(tmp_path: Path) -> None:
    """The budget is never exceeded, and early and late rows are both there."""
    budget = 2**20
    sink = TensorBoardSink(tmp_path, budget_bytes=budget)
    sink.open(RUN, SCHEMA)
    found = [30_000 + 7000 * i for i in range(10)]
    for first in range(0, 120_000, 64):
        for step in found:
            if first <= step < first + 64:
                sink.write(finding(step))
        sink.write(block(first, 64))
        if first == 64_000:
            sink.close()
            sink = TensorBoardSink(tmp_path, budget_bytes=budget)
            sink.open(RUN, SCHEMA)
        if first % 6400 == 0:
            assert _size(tmp_path) <= budget
    sink.close()
    assert 0.4 * budget < _size(tmp_path) <= budget
    steps = [s for _, b in read_blocks(tmp_path) for s in b.steps.tolist()]
    assert len(steps) == len(set(steps))
    assert window(*found) <= set(steps)
    assert set(range(800)) <= set(steps)
    assert max(steps) > 115_000


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.iterdir())
