"""From real fits, through Prometheus and Alertmanager, to who is told."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gradwatch.monitoring.losses import stalled
from gradwatch.monitoring.thresholds import Settings
from tests.monitoring.stack import (
    Stack,
    free_port,
    monitoring,
    serving,
)
from tests.monitoring.trainers import Trainer, learner, staller
from tests.service.conftest import stopping

_SCALE = 1 / 120
_ROOT = Path(__file__).parents[2]
_TRAINS = """
import sys
from pathlib import Path
from tests.monitoring.trainers import learner
trainer = learner(Path(sys.argv[1]), "killed")
trainer.start()
print(trainer.run_id, flush=True)
trainer.join()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 8 MB of its own; `None` where only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if os.geteuid() != 0:
        yield None
        return
    assert done.returncode == 0, done.stderr
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def another_process(logdir: Path) -> Iterator[tuple[Any, str]]:
    """A trainer in a process of its own, and its run's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAINS, str(logdir)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    with stopping(process):
        assert process.stdout
        with process.stdout as stdout:
            yield process, stdout.readline().strip()


def fill(folder: Path) -> None:
    """Writes until the disk is full."""
    with (folder / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017


@dataclass
class Scene:
    """What faults happen to.

    Attributes:
        runs: folder of the runs.
        disk: a small file system with one more, if there may be one.
        trainers: by the names of their runs.
        killed: id of a run in a process of its own.
        full: the service that looks at `disk`.
        dead: a service that looks at nothing.
        watched: who sees all that.
    """

    runs: Path
    disk: Path | None
    trainers: dict[str, Trainer]
    killed: str
    full: str
    dead: str
    watched: Stack

    def about(self, name: str) -> str:
        """Returns the id of a trainer's run."""
        return self.trainers[name].run_id

    def expected(self) -> set[tuple[str, str]]:
        """Returns alerts and what they are about."""
        return {
            ("GradwatchNonfiniteBatch", self.about("nan")),
            ("GradwatchStalledLoss", self.about("stalled")),
            ("GradwatchRunStalled", self.about("hung")),
            ("GradwatchRunLost", self.killed),
            ("GradwatchExporterDown", self.dead),
            *([("GradwatchDiskFull", self.full)] if self.disk else []),
        }

    def await_all(self, status: str) -> None:
        """Waits until each of them was told."""
        for alert, about in sorted(self.expected()):
            self.watched.alerts.wait(alert, about, status)


def seconds_until_told(watched: Stack, trainer: Trainer) -> float:
    """Lets NaN happen; returns how long it takes until somebody is told."""
    known = f'gradwatch_steps_total{{run="{trainer.run_id}"}} > 20'
    watched.await_result(known)
    began = time.time()
    trainer.nan.set()
    told = watched.alerts.wait("GradwatchNonfiniteBatch", trainer.run_id)
    return told.time - began


def both_ways_agree(scene: Scene) -> None:
    """The rule and the expression find the one run that stalls."""
    settings = Settings({}, _SCALE)
    finding = "gradwatch_finding_last_timestamp_seconds"
    for expression in (f'{finding}{{rule="stalled_loss"}}', stalled(settings)):
        scene.watched.await_result(expression)
        found = {m["run"] for m in scene.watched.query(expression)}
        assert found == {scene.about("stalled")}


def a_full_disk_mutes(scene: Scene, disk: Path) -> None:
    """Its run looks lost to Prometheus, and nobody is told; there is room."""
    scene.watched.alerts.wait("GradwatchDiskFull", scene.full)
    labels = f'alertstate="firing",run="{scene.about("full")}"'
    lost = f'ALERTS{{alertname="GradwatchRunLost",{labels}}}'
    scene.watched.await_result(lost)
    (disk / "filling").unlink()


def faults_end(scene: Scene) -> None:
    """What the runbook says is done."""
    told = scene.watched.alerts
    told.wait("GradwatchRunStalled", scene.about("hung"))
    scene.trainers["hung"].hang.clear()
    told.wait("GradwatchRunLost", scene.killed)
    shutil.move(scene.runs / scene.killed, scene.runs.parent / "moved")


def test_each_fault_raises_its_own_alert_and_no_other(
    tmp_path: Path, small_disk: Path | None
) -> None:
    """Six faults beside a healthy run, each told and resolved."""
    runs, empty, port = tmp_path / "runs", tmp_path / "empty", free_port()
    runs.mkdir()
    empty.mkdir()
    with ExitStack() as stack, ExitStack() as dying:
        one = stack.enter_context(serving(runs))
        other = small_disk or empty
        full = stack.enter_context(serving(other))
        dead = dying.enter_context(serving(empty, port=port))
        trainers = {
            "healthy": learner(runs, "healthy"),
            "nan": learner(runs, "nan"),
            "hung": learner(runs, "hung"),
            "full": learner(other, "full"),
            "stalled": staller(runs, "stalled", steps=1500),
        }
        for trainer in trainers.values():
            stack.callback(trainer.stop)
            trainer.start()
        process, killed = stack.enter_context(another_process(runs))
        watched = stack.enter_context(
            monitoring(
                tmp_path / "built",
                [one, full, dead],
                time_scale=_SCALE,
                values={"disk_free_bytes": 300_000},
            )
        )
        scene = Scene(runs, small_disk, trainers, killed, full, dead, watched)
        assert seconds_until_told(watched, trainers["nan"]) < 5
        watched.await_result(f'gradwatch_steps_total{{run="{killed}"}} > 20')
        process.send_signal(signal.SIGKILL)
        trainers["hung"].hang.set()
        if small_disk:
            fill(small_disk)
        dying.close()
        if small_disk:
            a_full_disk_mutes(scene, small_disk)
        faults_end(scene)
        watched.alerts.wait("GradwatchExporterDown", dead)
        dying.enter_context(serving(empty, port=port))
        both_ways_agree(scene)
        trainers["healthy"].stop()
        watched.alerts.wait("GradwatchStalledLoss", scene.about("stalled"))
        trainers["stalled"].stop()
        scene.await_all("resolved")
        assert watched.alerts.heard("firing") == scene.expected()
        assert watched.alerts.heard("resolved") == scene.expected()
        assert watched.watchdog.heard("firing") == {("Watchdog", "")}


@pytest.mark.acceptance
def test_nan_is_told_within_five_seconds(tmp_path: Path) -> None:
    """Median of ten runs, one after the other, at 1 s and real durations."""
    runs = tmp_path / "runs"
    runs.mkdir()
    took = []
    with (
        serving(runs) as service,
        monitoring(tmp_path / "built", [service]) as watched,
    ):
        for i in range(10):
            trainer = learner(runs, f"nan{i}")
            trainer.start()
            try:
                took.append(seconds_until_told(watched, trainer))
            finally:
                trainer.stop()
    print("seconds until told:", sorted(round(t, 2) for t in took))
    assert statistics.median(took) < 5
    assert {t.alert for t in watched.alerts.told} == {"GradwatchNonfiniteBatch"}
