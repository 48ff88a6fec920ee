from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from typer.testing import CliRunner

from gradwatch.cli import app
from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Finding,
    Phase,
    Run,
    Schema,
)
from gradwatch.runstate import RunState
from gradwatch.signals import Slot
from gradwatch.strict_json import dumps

COMMAND = [sys.executable, "-m", "gradwatch.cli"]


def write_run(
    root: Path, run_id: str, *, phase: Phase = "running", age: float = 0.0
) -> None:
    """Writes the state.json of a run whose last loss is NaN."""
    now = time.time() - age
    state = RunState(Run(run_id, run_id, now - 60, "host", {}, {}))
    slots = (Slot("loss"), Slot("gradient_norm"))
    state.begin(Anatomy(planned_steps=100), Schema(slots))
    values = np.asarray([[0.5, 1.0], [np.nan, 1234.5678]], np.float32)
    times = np.array([now - 2, now - 1])
    state.fold(Block(np.arange(2), times, values, np.zeros(2, np.bool_)))
    state.fold(Finding("rule", "info", "", 1, 1, {}, (), "", ""))
    reason = "nonfinite" if phase == "failed" else ""
    state.fold(Beat(now, phase, 2, now + 15, reason))
    folder = root / run_id
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(dumps(state.snapshot()))


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """A folder with a running, a failed and a lost run."""
    root = tmp_path / "runs"
    write_run(root, "alive")
    write_run(root, "broken", phase="failed", age=7200)
    write_run(root, "gone", age=120)
    return root


def test_status_shows_a_table(logdir: Path) -> None:
    """Every run has a line with state, progress, values and age."""
    done = CliRunner().invoke(app, ["status", "--logdir", str(logdir)])
    assert (done.exit_code, done.stderr) == (0, "")
    lines = {
        li.split()[0]: " ".join(li.split()) for li in done.stdout.splitlines()
    }
    assert lines["run"] == "run state step loss gradient norm findings beat"
    alive = r"alive running 2/100 nan 1235 1 \d s ago"
    assert re.match(alive, lines["alive"])
    assert "failed (nonfinite)" in lines["broken"]
    assert lines["broken"].endswith("2 h ago")
    assert lines["gone"].startswith("gone lost 2/100")


def test_status_as_json(logdir: Path) -> None:
    """`--json` prints strict JSON with NaN as text."""
    command = ["status", "--json", "--logdir", str(logdir)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    runs = {run["run"]: run for run in json.loads(done.stdout)}
    assert runs["gone"].pop("beat_age_seconds") == pytest.approx(120, abs=20)
    expected = {
        "run": "gone",
        "state": "running",
        "health": "lost",
        "reason": "",
        "steps": 2,
        "planned_steps": 100,
        "loss": "NaN",
        "gradient_norm": pytest.approx(1234.5678),
        "findings": {"critical": 0, "warning": 0, "info": 1},
    }
    assert {name: runs["gone"][name] for name in expected} == expected


def test_status_without_runs_fails(tmp_path: Path) -> None:
    """No folder or no run in it is said on stderr, with exit code 1."""
    command = ["status", "--logdir", str(tmp_path)]
    empty = CliRunner().invoke(app, command)
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert empty.stderr == f"There is no run directory in {tmp_path}.\n"
    missing = CliRunner().invoke(app, [*command, "--logdir", "/nowhere"])
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "Expected an existing folder. Received: /nowhere" in missing.stderr


def test_status_says_what_it_could_not_read(logdir: Path) -> None:
    """A broken run is mentioned, and the others are listed."""
    (logdir / "alive" / "state.json").write_text("{")
    done = CliRunner().invoke(app, ["status", "--logdir", str(logdir)])
    assert done.exit_code == 0
    assert done.stderr == "Not read (json): 1\n"
    assert "gone" in done.stdout


def test_help_and_version() -> None:
    """The commands are listed; the version is one word."""
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert "status" in shown.stdout
    version = CliRunner().invoke(app, ["--version"])
    assert version.exit_code == 0
    assert version.stdout.strip()


def test_serve_in_a_process(logdir: Path) -> None:
    """`gradwatch serve` says where it serves, and ends when told to."""
    command = [*COMMAND, "serve", "--port", "0", "--logdir", str(logdir)]
    late = str(logdir / "late")
    process = subprocess.Popen(
        [*command, "--logdir", late], stdout=-1, stderr=-1, text=True
    )
    try:
        assert process.stdout
        url = process.stdout.readline().removeprefix("Serving ").strip()
        with urlopen(f"{url}metrics", timeout=10) as response:
            text = response.read().decode()
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
    assert said == f"`{late}` does not exist yet; waiting.\n"
    assert 'gradwatch_run_health{health="lost",run="gone"} 1.0' in text
    assert 'run="broken"' not in text  # ended too long ago
    assert process.returncode in (0, -signal.SIGTERM)


def test_serve_on_a_taken_port_fails(logdir: Path) -> None:
    """The message names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["serve", "--logdir", str(logdir), "--port", port]
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"--port {port}`: cannot listen there (Address" in done.stderr


def test_serve_says_which_package_is_missing(logdir: Path) -> None:
    """Without the extra the message says what to install."""
    code = (
        "import sys; sys.modules['starlette.applications'] = None\n"
        "from gradwatch.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "serve", "--logdir", str(logdir)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'gradwatch[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_import_is_lazy() -> None:
    """The CLI loads neither Keras nor TensorFlow nor a web server."""
    heavy = {"keras", "tensorflow", "starlette", "uvicorn"}
    code = f"import sys, gradwatch.cli; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
