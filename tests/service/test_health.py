"""Lost and stalled, from what a trainer told and the time since."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gradwatch.health import health
from gradwatch.runstate import RunState
from gradwatch.service.runs import Runs, Seen
from gradwatch.strict_json import dumps

NewState = Callable[..., RunState]


def told(new_state: NewState, **fields: Any) -> dict[str, Any]:
    """Returns the snapshot of a run that beats now, with other fields."""
    return {**new_state("one").snapshot(), **fields}


def test_lost_after_the_slack(new_state: NewState) -> None:
    """A run is lost 30 s after the promised beat, unless it has ended."""
    running = new_state("one").snapshot()
    promised = running["next_beat"]
    assert health(running, promised + 29.9) == "ok"
    assert health(running, promised + 30.1) == "lost"
    plain = json.loads(dumps(running))
    assert health(plain, promised + 30.1) == "lost"
    ended = new_state("two", phase="interrupted").snapshot()
    assert health(ended, promised + 1e6) == "ok"
    silent = {**running, "next_beat": 0.0}
    assert health(silent, running["heartbeat"] + 29.0) == "ok"
    assert health(silent, running["heartbeat"] + 31.0) == "lost"


@pytest.mark.parametrize(
    ("fields", "seconds", "expected"),
    [
        ({}, 299, "ok"),
        ({}, 301, "stalled"),
        # 20 executions took 400 s: each may take 20 times 20 s.
        ({"executions": 20, "sum": 400.0}, 399, "ok"),
        ({"executions": 20, "sum": 400.0}, 401, "stalled"),
        ({"compiling": True}, 3599, "ok"),
        ({"compiling": True}, 3601, "stalled"),
        ({"phase": "evaluating"}, 1e6, "ok"),
        ({"phase": "starting", "compiling": True}, 3599, "ok"),
        ({"phase": "finished"}, 1e6, "ok"),
        ({"step_began": 0.0}, 3599, "ok"),  # a checkpoint, say
        ({"step_began": 0.0}, 3601, "stalled"),
    ],
)
def test_stalled_in_a_step(
    new_state: NewState, fields: dict[str, Any], seconds: float, expected: str
) -> None:
    """Steps have minutes, all else an hour; evaluations have all the time."""
    running = told(new_state)
    now = running["last_step_time"] + seconds
    durations = {**running["step_duration"], "sum": fields.get("sum", 0.1)}
    alive = {"heartbeat": now, "next_beat": now + 15, "phase_since": 0.0}
    began = {"step_began": running["last_step_time"]}
    snapshot = {**running, **alive, **began, **fields}
    assert health({**snapshot, "step_duration": durations}, now) == expected


def test_the_time_since_a_beat_is_no_step(new_state: NewState) -> None:
    """What a beat told of a step counts at the beat, not until the next."""
    running = told(new_state)
    began = {"step_began": running["heartbeat"] - 1.0}
    late = running["heartbeat"] + 40.0
    assert health({**running, **began}, late, stalled_after=5.0) == "ok"


def test_a_long_evaluation_is_no_stall_afterwards(new_state: NewState) -> None:
    """After it, the hour of what is no step begins anew."""
    running = told(new_state, step_began=0.0)
    now = running["last_step_time"] + 7200
    alive = {"heartbeat": now, "next_beat": now + 15, "phase_since": now - 5}
    assert health({**running, **alive}, now) == "ok"


_TRAINER = """
import sys, threading, time
import numpy as np
sys.path.insert(0, {root!r})
from gradwatch import GradWatch
from tests.models import classifier

def batches():
    random = np.random.default_rng(0)
    for batch in range(1_000_000):
        time.sleep(3600 if batch == {hangs_at} else 0.001)
        yield random.normal(size=(32, 8)), random.integers(0, 3, 32)

classifier().fit(
    batches(), steps_per_epoch=1_000_000, verbose=0, shuffle=False,
    callbacks=[GradWatch({logdir!r}, name="job")],
)
"""


@contextmanager
def training(logdir: Path, hangs_at: int) -> Iterator[subprocess.Popen[bytes]]:
    """Trains in a process of its own, which is killed in the end."""
    root = str(Path(__file__).parents[2])
    code = _TRAINER.format(root=root, logdir=str(logdir), hangs_at=hangs_at)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def _wait(runs: Runs, what: Callable[[Seen], object]) -> Seen:
    deadline = time.monotonic() + 60
    while True:
        for seen in runs.look():
            if what(seen):
                return seen
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_trainer_is_lost_within_a_minute(tmp_path: Path) -> None:
    """A real fit that is killed is lost after more than 30 s, before 60 s."""
    ahead = [0.0]
    runs = Runs([tmp_path], clock=lambda: time.time() + ahead[0])
    with training(tmp_path, hangs_at=-1) as process:
        _wait(runs, lambda seen: seen.snapshot["steps"] > 50)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        killed = time.time()
    (seen,) = runs.look()
    assert health(seen.snapshot, seen.now(killed + 30)) == "ok"
    ahead[0] = 60.0
    (seen,) = runs.look()
    assert health(seen.snapshot, seen.now(runs.clock())) == "lost"
    assert seen.snapshot["phase"] == "running"  # nobody could say more


def test_a_step_that_hangs_is_stalled(tmp_path: Path) -> None:
    """A real fit that hangs in its data pipeline beats on, and is stalled."""
    runs = Runs([tmp_path])

    def stalled(seen: Seen) -> bool:
        now = seen.now(time.time())
        return health(seen.snapshot, now, stalled_after=1.0) == "stalled"

    with training(tmp_path, hangs_at=300):
        seen = _wait(runs, stalled)
        assert seen.snapshot["steps"] in (299, 300)
        beat = seen.snapshot["heartbeat"]
        _wait(runs, lambda s: s.snapshot["heartbeat"] > beat)
