"""A trainer that dies or whose disk fills leaves files that can be read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from typer.testing import CliRunner

from gradwatch.cli import app
from gradwatch.sinks.readings import read_blocks

TRAINS = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from gradwatch import GradWatch
from tests.models import classifier, data
{before}
watch = GradWatch({logdir!r}, name="job")
x, y = data()
model = classifier()
model.fit(x, y, epochs={epochs}, verbose=0, callbacks=[watch])
print("steps", watch.state["steps"])
print("iterations", int(model.optimizer.iterations))
"""
ROOT = str(Path(__file__).parent.parent)


def _start(logdir: Path, epochs: int, before: str = "") -> Any:
    code = TRAINS.format(
        root=ROOT, logdir=str(logdir), epochs=epochs, before=before
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def _state(logdir: Path) -> dict[str, Any]:
    files = list(logdir.glob("job-*/state.json"))
    return json.loads(files[0].read_text()) if files else {"steps": 0}


def test_kill_9_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """State, anatomy, event file and status can be read afterwards."""
    with _start(tmp_path, 1_000_000) as process:
        try:
            deadline = time.monotonic() + 120
            while _state(tmp_path)["steps"] < 200:
                assert time.monotonic() < deadline
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    (path,) = tmp_path.iterdir()
    state = _state(tmp_path)
    assert state["phase"] == "running"
    assert state["steps"] >= 200
    anatomy = json.loads((path / "anatomy.json").read_text())
    assert anatomy["optimizer"]["class_name"] == "Adam"
    assert anatomy["variables"][0]["path"] == "net/hidden/kernel"
    rows = [s for _, block in read_blocks(path) for s in block.steps.tolist()]
    assert rows == list(range(len(rows)))
    assert len(rows) >= 150
    history = EventAccumulator(str(path)).Reload()
    assert len(history.Scalars("loss")) > 1
    told = CliRunner().invoke(app, ["status", "--logdir", str(tmp_path)])
    assert told.exit_code == 0
    assert "running" in told.output or "lost" in told.output


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """No file may grow any more: one warning a sink, training goes on."""
    full = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    )
    with _start(tmp_path, 40, full) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out == "steps 680\niterations 680\n"
    said = re.findall(r"Sink `(\w+)` failed", err)
    assert said
    assert len(said) == len(set(said))


def test_a_process_that_just_ends(tmp_path: Path) -> None:
    """An exception in another callback ends the run as failed."""
    ends = (
        "import keras\n"
        "fail = keras.callbacks.LambdaCallback("
        "on_epoch_end=lambda *_: 1 / 0)\n"
        "GradWatch_, GradWatch = GradWatch, "
        "lambda *a, **k: [GradWatch_(*a, **k), fail]\n"
    )
    with _start(tmp_path, 3, ends) as process:
        _, err = process.communicate(timeout=120)
    assert "ZeroDivisionError" in err
    state = _state(tmp_path)
    assert (state["phase"], state["reason"]) == (
        "failed",
        "fit ended without a word",
    )
