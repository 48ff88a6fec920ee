"""The measurements of `make bench` measure what they say; nothing is timed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import GradWatch
from gradwatch.sinks.readings import read_blocks
from tests.bench import arms, overhead, report, service
from tests.bench.figures import Estimate, estimate, table
from tests.bench.process import alone
from tests.bench.workloads import WORKLOADS, compiled, tiny

SECONDS = st.floats(1e-4, 10)


@given(st.lists(SECONDS, min_size=1, max_size=20), st.floats(0.5, 2))
def test_slow_rounds_do_not_widen_the_interval(
    plain: list[float], factor: float
) -> None:
    """An arm that is slower by a factor is so in whatever rounds there are."""
    found = estimate([factor * seconds for seconds in plain], plain)
    np.testing.assert_allclose(found, factor)


def test_most_intervals_hold_the_truth() -> None:
    """The interval of ten noisy rounds holds the true ratio as promised."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        ours, plain = random.normal(1, 0.1, (2, 10)) * [[1.1], [1]]
        found = estimate(ours.tolist(), plain.tolist())
        held += found.low <= 1.1 <= found.high
    assert 180 <= held < 200


def test_difference() -> None:
    """Amounts are compared by their difference."""
    found = estimate([150.0, 152.0, 151.0], [100.0, 102.0, 101.0], np.subtract)
    assert found == Estimate(50.0, 50.0, 50.0)


@pytest.mark.parametrize(
    ("low", "verdict"), [(1.05, "pass"), (1.06, "pass"), (1.07, "miss")]
)
def test_verdict(low: float, verdict: str) -> None:
    """A target is missed when the whole interval lies above it."""
    found = Estimate(1.1, low, 1.2)
    assert found.text(1.06) == f"1.10 [{low:.2f}, 1.20] {verdict}"
    assert found.text() == f"1.10 [{low:.2f}, 1.20]"


def test_table() -> None:
    """A table is Markdown, and its columns line up as plain text."""
    lines = table(["arm", "ratio"], [["own tape", "1.7"]]).split("\n")
    assert lines == [
        "| arm      | ratio |",
        "| -------- | ----- |",
        "| own tape | 1.7   |",
    ]


def test_every_workload_has_its_targets() -> None:
    """No workload is measured without a target, and arms of ours have one."""
    assert set(overhead.TARGETS) == set(WORKLOADS)
    for targets in overhead.TARGETS.values():
        assert set(arms.OURS) - {"plain"} <= set(targets)


def test_a_fresh_process_is_pinned() -> None:
    """It has the cores that it is given; this process keeps its own."""
    before = os.sched_getaffinity(0)
    assert alone(os.sched_getaffinity, 0, cores=1) == {min(before)}
    assert os.sched_getaffinity(0) == before
    assert alone(os.getpid) != os.getpid()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras
def test_all_arms_train_and_are_reported() -> None:
    """Every arm has its rounds; what it adds to the step is in the table."""
    names = (*arms.OURS, *arms.PEERS, "check_numerics")
    found = arms.measure("tiny", False, names, arms.Plan(2, 0, 8))
    for clock in ("wall", "cpu"):
        assert {len(found[clock][name]) for name in names} == {2}
    added = found["operations"]
    assert added["plain"] < added["record"] < added["default"]
    assert added["plain"] < added["check_numerics"]
    assert added["plain"] == added["own tape"] == added["TensorBoard"]
    weights = 16 * 32 + 32 + 32 * 10 + 10
    assert found["gradient_bytes"] == 4 * weights
    text = overhead.report([{"cores": 1, **found}]).text
    for name in names[1:]:
        assert f"| {name} " in text


def test_misses_are_told() -> None:
    """A ratio above its target is a miss, and peers have no target."""
    slow, plain = [0.2, 0.2], [0.1, 0.1]
    costs = {"plain": plain, "record": plain, "default": slow, "own tape": slow}
    result: dict[str, Any] = {
        "workload": "mlp",
        "jit": True,
        "cores": 2,
        "steps": 8,
        "wall": costs,
        "cpu": {**costs, "default": plain},
        "operations": {"plain": 10},
        "gradient_bytes": 4,
        "gradient_pass": 0.01,
    }
    report = overhead.report([result])
    assert report.misses == [
        "mlp, XLA, 2, default, wall: 2.00 [2.00, 2.00], not 1.07"
    ]
    assert report.text.count("] miss") == 1
    assert report.text.count("] pass") == 3


def test_own_tape_sees_the_batch_of_the_step(tmp_path: Path) -> None:
    """With a learning rate of 0, the second pass finds the step's own norm."""
    keras.utils.set_random_seed(0)
    model, data = tiny()
    tape, watch = arms.OwnTape(data), GradWatch(tmp_path)
    compiled(model, learning_rate=0.0).fit(
        data,
        epochs=2,
        steps_per_epoch=70,
        verbose=0,
        shuffle=False,
        callbacks=[watch, tape],
    )
    assert watch.path is not None
    norms = np.concatenate(
        [
            block.values[:, schema.column("gradient_norm")]
            for schema, block in read_blocks(watch.path)
        ]
    )
    assert len(set(norms.tolist())) > 50
    np.testing.assert_allclose(tape.norms, norms, rtol=1e-5)


def test_service_is_measured() -> None:
    """Every kind of request is timed, of a service that has all its runs."""
    (found,) = service.measure_all(runs=2, variables=(3,), rounds=1, idle=0.5)
    for name in service.TARGETS:
        assert found[name]
        assert all(0 <= figure < 10_000 for figure in found[name])
    assert found["series"] > 2 * (3 * 6 + 60)
    told = service.report([{**found, "kept": [1e6], "series": 20_001}])
    assert "2 x 3 kept: 1e+06, not 250.0" in told.misses
    assert "2 x 3: 20001 series" in told.misses


def test_report_is_measured() -> None:
    """Both formats are written of a run that the sinks have written."""
    found = report.measure_all(steps=1000, variables=4)
    assert report.report(found).misses == []
    assert 0 < found["report.md"]["megabytes"] < 0.1
    assert 0.05 < found["report.html"]["megabytes"] < 1
    slow = {**found["report.html"], "seconds": 21.0}
    told = report.report({**found, "report.html": slow})
    assert told.misses == ["report.html: 21 seconds, not 20"]
