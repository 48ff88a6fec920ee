"""`state.json`: whole at every moment, and not too often."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Finding,
    Record,
    Run,
    Schema,
)
from gradwatch.runstate import RunState
from gradwatch.signals import Slot
from gradwatch.sinks.state import FILE, LIMIT, StateSink, add_autopsies

RUN = Run("run", "run", 1000.0, "host", {}, {})
BEAT = Beat(1001.0, "running", 5, 1010.0)
FINDING = Finding("r", "warning", "", 3, 3, {}, (), "Bad.", "Fix.")
BLOCK = Block.empty(1)


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Returns the clock that `StateSink` reads."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def read(path: Path) -> dict[str, Any]:
    """Returns what a reader of the run directory sees."""
    data: dict[str, Any] = json.loads((path / FILE).read_bytes())
    return data


def test_snapshot_is_there_from_the_start(tmp_path: Path) -> None:
    """A run is visible before its first step, also in a new directory."""
    path = tmp_path / "runs" / "a"
    StateSink(path, RunState(RUN)).open(RUN, Schema())
    assert read(path)["phase"] == "starting"


def test_at_most_once_a_second(tmp_path: Path, clock: Clock) -> None:
    """Within a second nothing is written; afterwards any record writes."""
    state = RunState(RUN)
    sink = StateSink(tmp_path, state)
    sink.open(RUN, Schema())
    first = (tmp_path / FILE).stat().st_ino
    clock.now += 0.9
    for record in (BEAT, FINDING):
        state.fold(record)
        sink.write(record)
    assert (tmp_path / FILE).stat().st_ino == first
    clock.now += 0.2
    sink.write(BLOCK)
    assert read(tmp_path)["phase"] == "running"
    assert len(read(tmp_path)["findings"]) == 1


@pytest.mark.parametrize("record", [BEAT, FINDING])
def test_beats_and_findings_are_written(
    tmp_path: Path, clock: Clock, record: Record
) -> None:
    """A Beat or a Finding is in the file as soon as the second is over."""
    state = RunState(RUN)
    sink = StateSink(tmp_path, state)
    sink.open(RUN, Schema())
    clock.now += 1.0
    state.fold(record)
    sink.write(record)
    assert read(tmp_path) == json.loads(json.dumps(state.snapshot()))


def test_blocks_alone_write_nothing(tmp_path: Path, clock: Clock) -> None:
    """Blocks do not ask for a snapshot: beats come often enough."""
    sink = StateSink(tmp_path, RunState(RUN))
    sink.open(RUN, Schema())
    (tmp_path / FILE).unlink()
    clock.now += 10.0
    sink.write(BLOCK)
    assert not (tmp_path / FILE).exists()


def test_close_always_writes(tmp_path: Path, clock: Clock) -> None:
    """The last state is there after close, however soon; twice is fine."""
    state = RunState(RUN)
    sink = StateSink(tmp_path, state)
    sink.open(RUN, Schema())
    state.fold(Beat(1002.0, "finished", 9, 0.0))
    sink.close()
    assert read(tmp_path)["phase"] == "finished"
    sink.close()
    sink.open(RUN, Schema())
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_too_large_drops_history_then_values(tmp_path: Path) -> None:
    """The file keeps its limit and stays readable; what matters stays."""
    slots = [Slot("loss")]
    slots += [
        Slot("variable_gradient_norm", "v" * 400 + str(i)) for i in range(3999)
    ]
    schema = Schema(tuple(slots))
    state = RunState(RUN)
    state.begin(Anatomy(), schema)
    steps = np.arange(120)
    times = 1000.0 + np.arange(120.0)
    values = np.random.default_rng(0).normal(size=(120, 4000))
    state.fold(Block(steps, times, values.astype(np.float32), steps < 0))
    state.fold(FINDING)
    StateSink(tmp_path, state).close()
    assert (tmp_path / FILE).stat().st_size <= LIMIT
    got = read(tmp_path)
    assert got["history"] == {"steps": [], "series": []}
    assert 0 < len(got["values"]) < 4000
    assert got["values"][0][:2] == ["loss", ""]
    assert len(got["findings"]) == 1


def test_long_findings_are_dropped_last(tmp_path: Path) -> None:
    """Findings with endless evidence cannot make the file too large."""
    state = RunState(RUN)
    evidence = {"names": "x" * 100_000}
    for step in range(20):
        state.fold(
            Finding("r", "info", "", step, step, evidence, (), "B.", "F.")
        )
    StateSink(tmp_path, state).close()
    assert (tmp_path / FILE).stat().st_size <= LIMIT
    assert read(tmp_path)["findings"][-1]["first_step"] == 19


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """While it is replaced again and again, every read is valid JSON."""
    state = RunState(RUN)
    sink = StateSink(tmp_path, state)
    sink.close()
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            sink.close()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(300):
            assert read(tmp_path)["version"] == 1
    finally:
        stop.set()
        thread.join()


def test_a_failed_write_is_tried_again(tmp_path: Path, clock: Clock) -> None:
    """After an error of the disk the next second's record writes."""
    path = tmp_path / "run"
    path.write_text("a file where the directory should be")
    sink = StateSink(path, RunState(RUN))
    with pytest.raises(OSError, match="run"):
        sink.open(RUN, Schema())
    path.unlink()
    sink.write(BLOCK)
    assert not path.exists()
    clock.now += 1.0
    sink.write(BLOCK)
    assert read(path)["phase"] == "starting"


def test_autopsies_are_added_to_a_run_that_has_ended(tmp_path: Path) -> None:
    """A trainer that may still write its state is left alone."""
    told = {"step": 3, "verdict": "model", "headline": "Log is not finite."}
    assert not add_autopsies(tmp_path, [told])
    (tmp_path / FILE).write_text("[]")
    assert not add_autopsies(tmp_path, [told])
    state = RunState(RUN)
    state.fold(BEAT)
    StateSink(tmp_path, state).close()
    assert not add_autopsies(tmp_path, [told])
    assert read(tmp_path)["autopsies"] == []
    state.fold(Beat(1002.0, "failed", 9, 0.0, "nonfinite"))
    StateSink(tmp_path, state).close()
    for _ in range(2):
        assert add_autopsies(tmp_path, [told])
        assert read(tmp_path) == {**state.snapshot(), "autopsies": [told]}


def test_import_loads_neither_tensorboard_nor_tensorflow() -> None:
    """The sinks without TensorBoard stay light."""
    code = (
        "import sys\n"
        "import gradwatch.sinks.state, gradwatch.sinks.findings\n"
        "import gradwatch.sinks.log, gradwatch.sinks.readings\n"
        "assert not {'tensorboard', 'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
