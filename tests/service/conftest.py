"""Real run directories, services and Prometheus servers for the tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest

from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Phase,
    Run,
    Schema,
    Variable,
)
from gradwatch.runstate import RunState
from gradwatch.service.app import create_app, create_server, listen
from gradwatch.service.options import Options
from gradwatch.service.runs import Runs
from gradwatch.signals import Slot
from gradwatch.strict_json import dumps

_PATIENCE = 30.0  # seconds; Prometheus 2.42 scrapes 5 s after its start first


def build_state(
    run_id: str, *, loss: float = 0.5, phase: Phase = "running", age: float = 0
) -> RunState:
    """Returns the state of a run of ten steps, folded from records.

    Args:
        run_id: its id.
        loss: of the last step.
        phase: what the last beat told.
        age: seconds since the last beat.
    """
    now = time.time() - age
    state = RunState(Run(run_id, "small", now - 60, "host", {}, {}))
    variable = Variable("dense/kernel", (2, 3), "float32", True, 0.1)
    slots = (
        Slot("loss"),
        Slot("gradient_norm"),
        Slot("nonfinite"),
        Slot("update_dropped"),
        Slot("variable_gradient_norm", variable.path),
    )
    anatomy = Anatomy("model", (), (variable,), None, (), {}, 100, {})
    state.begin(anatomy, Schema(slots))
    values = np.tile(np.asarray([0.5, 2, 0, 0, 2], np.float32), (10, 1))
    values[-1, 0] = loss
    values[:, 2] = ~np.isfinite(values[:, 0])
    times = now - np.arange(10, 0, -1.0)
    state.fold(Block(np.arange(10), times, values, np.zeros(10, np.bool_)))
    state.fold(Beat(now, phase, 10, now + 15))
    return state


def save_state(root: Path, state: RunState) -> Path:
    """Writes a state as the trainer does and returns its `state.json`."""
    snapshot = state.snapshot()
    path = root / str(snapshot["run"]["id"]) / "state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(dumps(snapshot))
    new.replace(path)
    return path


@pytest.fixture
def new_state() -> Callable[..., RunState]:
    """Builds a RunState; arguments as of `build_state`."""
    return build_state


@pytest.fixture
def save() -> Callable[[Path, RunState], Path]:
    """Writes a RunState below a root."""
    return save_state


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Returns ports on which nobody listens."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def serve_runs() -> Iterator[Callable[..., str]]:
    """Serves `Runs` from a thread of this process; returns the URL's root."""
    with ExitStack() as stack:
        yield lambda runs, options=None: stack.enter_context(
            serving_here(runs, options)
        )


@contextmanager
def serving_here(runs: Runs, options: Options | None = None) -> Iterator[str]:
    """Serves `Runs` from a thread of this process; yields the URL's root."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = create_server(create_app(runs, options))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def serve_command() -> Iterator[Callable[[Path], str]]:
    """Runs `gradwatch serve` on a free port; returns the URL it printed."""
    with ExitStack() as stack:
        yield lambda root: stack.enter_context(_command(root))


@contextmanager
def _command(root: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "gradwatch.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--logdir", str(root)], stdout=subprocess.PIPE, text=True
    )
    with stopping(process):
        assert process.stdout
        with process.stdout as stdout:
            said = stdout.readline()
            assert said.startswith("Serving http://"), said
            yield said.split()[1]


@contextmanager
def stopping(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Ends a process that was started here, by its pid."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus server that runs now."""

    url: str

    def query(self, expression: str) -> dict[str, str]:
        """Returns `run` label (or job, or "") -> value, as text."""
        address = f"{self.url}/api/v1/query?query={quote(expression)}"
        with urlopen(address, timeout=5) as response:
            result = json.load(response)["data"]["result"]
        return {
            r["metric"].get("run", r["metric"].get("job", "")): r["value"][1]
            for r in result
        }

    def wait(self, expression: str, expected: Mapping[str, str]) -> None:
        """Waits until a query answers as expected."""
        end = time.monotonic() + _PATIENCE
        while (got := self.query(expression)) != expected:
            assert time.monotonic() < end, f"{expression}: {got}"
            time.sleep(0.2)


@pytest.fixture
def start_prometheus(
    tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Callable[[Mapping[str, str]], Prometheus]]:
    """Starts the real Prometheus on targets (job -> host:port), scraping."""
    with ExitStack() as stack:
        yield lambda targets: stack.enter_context(
            _prometheus(tmp_path / "prometheus", free_port(), targets)
        )


@contextmanager
def _prometheus(
    folder: Path, port: int, targets: Mapping[str, str]
) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    if not binary:
        pytest.fail("`prometheus` is not installed: apt install prometheus")
    folder.mkdir()
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [target]}]}
        for job, target in targets.items()
    ]
    times = {"scrape_interval": "1s", "scrape_timeout": "900ms"}
    config = folder / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"global": times, "scrape_configs": jobs}))
    address = f"127.0.0.1:{port}"
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stderr=log,
        )
    with stopping(process):
        _await_port(process, port, folder / "log.txt")
        yield Prometheus(f"http://{address}")


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            url = f"http://127.0.0.1:{port}/-/ready"
            with urlopen(url, timeout=2):
                return
        except OSError:
            alive = process.poll() is None and time.monotonic() < end
            assert alive, log.read_text()
            time.sleep(0.1)
