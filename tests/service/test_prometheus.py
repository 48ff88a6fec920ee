"""The real Prometheus scrapes the service and the training process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from gradwatch.metrics import Endpoint, RunCollector, serve_metrics
from gradwatch.records import Beat, Block
from gradwatch.runstate import RunState

# Told a beat in time 100 s ago, and lives on without telling another.
_TRAINER = """
import pathlib, sys, time
from gradwatch.records import Beat, Run
from gradwatch.strict_json import dumps
from gradwatch.runstate import RunState

then = time.time() - 100
state = RunState(Run("killed", "killed", then, "host", {}, {}))
state.fold(Beat(then, "running", 1, then + 15))
folder = pathlib.Path(sys.argv[1], "killed")
folder.mkdir()
(folder / "state.json").write_text(dumps(state.snapshot()))
print("written", flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(
    tmp_path: Path,
    new_state: Callable[..., RunState],
    save: Callable[[Path, RunState], Path],
) -> Path:
    """Run directories: healthy, one with a NaN, one of a killed process."""
    folder = tmp_path / "runs"
    save(folder, new_state("healthy"))
    save(folder / "nested", new_state("nan", loss=np.nan, phase="failed"))
    trainer = subprocess.Popen(
        [sys.executable, "-c", _TRAINER, str(folder)], stdout=subprocess.PIPE
    )
    try:
        assert trainer.stdout
        with trainer.stdout as stdout:
            assert stdout.readline() == b"written\n"
    finally:
        trainer.send_signal(signal.SIGKILL)
        assert trainer.wait(10) == -signal.SIGKILL
    return folder


@pytest.fixture
def trainer_state(new_state: Callable[..., RunState]) -> RunState:
    """The state of a run in this process."""
    return new_state("here")


@pytest.fixture
def endpoint(trainer_state: RunState) -> Iterator[Endpoint]:
    """The in-process endpoint of that run."""
    collector = RunCollector(lambda: [trainer_state.snapshot()])
    endpoint = serve_metrics(collector, 0)
    yield endpoint
    endpoint.close()


def test_prometheus_scrapes_service_and_trainer(
    root: Path,
    serve_command: Callable[[Path], str],
    endpoint: Endpoint,
    trainer_state: RunState,
    start_prometheus: Callable[..., Any],
) -> None:
    """Values, a NaN, a killed run and a change arrive as they were told."""
    service = urlsplit(serve_command(root)).netloc
    targets = {"service": service, "trainer": urlsplit(endpoint.url).netloc}
    prometheus = start_prometheus(targets)
    prometheus.wait("up", {"service": "1", "trainer": "1"})
    runs = {"healthy": "0.5", "here": "0.5", "nan": "NaN"}
    prometheus.wait('gradwatch_loss{split="train"}', runs)
    _check_values(prometheus)
    _check_health(prometheus)

    now = time.time()
    rows = np.asarray([[np.nan, np.inf, 1, 1, np.inf]], np.float32)
    trainer_state.fold(
        Block(np.array([10]), np.array([now]), rows, np.array([False]))
    )
    trainer_state.fold(Beat(now, "failed", 11, 0.0, "nonfinite"))
    prometheus.wait('gradwatch_loss{job="trainer"}', {"here": "NaN"})
    prometheus.wait('gradwatch_gradient_norm{job="trainer"}', {"here": "+Inf"})
    recent = "time() - gradwatch_last_nonfinite_timestamp_seconds < bool 300"
    got = prometheus.query(recent)
    assert (got["here"], got["healthy"]) == ("1", "0")
    skipped = 'gradwatch_skipped_steps_total{job="trainer",reason="nonfinite"}'
    assert prometheus.query(skipped) == {"here": "1"}


def _check_values(prometheus: Any) -> None:
    finite = 'gradwatch_loss{job="service"} > -Inf < +Inf'
    assert prometheus.query(finite) == {"healthy": "0.5"}
    steps = prometheus.query("gradwatch_steps_total")
    assert steps == {"healthy": "10", "nan": "10", "killed": "0", "here": "10"}
    norm = 'gradwatch_variable_gradient_norm{variable="dense/kernel"}'
    assert set(prometheus.query(norm).values()) == {"2"}
    nan = 'gradwatch_nonfinite_events_total{source="loss",kind="nan"}'
    assert prometheus.query(nan)["nan"] == "1"
    assert prometheus.query(nan)["healthy"] == "0"
    durations = prometheus.query("gradwatch_step_duration_seconds_count")
    assert durations["here"] == "9"
    assert prometheus.query('{__name__=~"gradwatch_.*_created"}') == {}
    errors = "sum by (job) (gradwatch_source_errors_total)"
    assert prometheus.query(errors) == {"service": "0"}


def _check_health(prometheus: Any) -> None:
    lost = 'gradwatch_run_health{health="lost"}'
    assert prometheus.query(lost) == {"healthy": "0", "nan": "0", "killed": "1"}
    running = 'gradwatch_run_state{job="service",state="running"} == 1'
    assert prometheus.query(running) == {"healthy": "1", "killed": "1"}
    silent = "time() - gradwatch_heartbeat_timestamp_seconds > bool 45"
    assert prometheus.query(silent)["killed"] == "1"
    assert prometheus.query(silent)["healthy"] == "0"
    ended = "gradwatch_run_end_timestamp_seconds > bool 0"
    assert prometheus.query(ended)["nan"] == "1"
    assert prometheus.query(ended)["killed"] == "0"
