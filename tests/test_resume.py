"""After a restart the steps go on where the restored optimizer was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwatch import GradWatch
from gradwatch.resume import Predecessor, find_predecessor
from tests.capture.test_fit import Recorder
from tests.models import BATCH, classifier, data

STEPS = 8  # of an epoch


class Crashes(keras.callbacks.Callback):
    """Ends the fit as a power cut does, in the middle of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.at = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remembers the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raises at the chosen batch."""
        if (self.epoch, batch) == self.at:
            raise RuntimeError("power cut")


def _fit(
    logdir: Path, *callbacks: Any, name: str | None = "job"
) -> tuple[GradWatch, Recorder]:
    model, recorder = classifier(), Recorder()
    x, y = data(STEPS * BATCH - 24)
    every = 200 if name else 0
    watch = GradWatch(
        logdir, name=name, sinks=[recorder], xray_every_steps=every
    )
    backup = keras.callbacks.BackupAndRestore(str(logdir.parent / "backup"))
    model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=3,
        verbose=0,
        callbacks=[watch, backup, *callbacks],
    )
    return watch, recorder


# Keras' own conversion, when it saves weights.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("name", ["job", None])
def test_curves_join(name: str | None, tmp_path: Path) -> None:
    """The restarted script goes on at the backup's step, and says from whom.

    Without an explicit name nothing tells that both are the same job.
    """
    logdir = tmp_path / "runs"
    with pytest.raises(RuntimeError, match="power cut"):
        _fit(logdir, Crashes(1, 5), name=name)
    (first,) = logdir.iterdir()
    # What is known of it may end before the crash.
    assert json.loads((first / "state.json").read_bytes())["steps"] <= STEPS + 6
    watch, recorder = _fit(logdir, name=name)
    start = STEPS if name else 0
    assert recorder.steps == list(range(start, start + 2 * STEPS))
    assert recorder.schema.first_step == start
    counts = recorder.column("optimizer_step")
    np.testing.assert_array_equal(counts, np.arange(STEPS, 3 * STEPS))
    assert watch.state["resumed_from"] == (first.name if name else "")
    assert watch.state["planned_steps"] == start + 2 * STEPS


def test_a_fresh_start_is_no_resume(tmp_path: Path) -> None:
    """The same name and a new optimizer: the steps begin at 0."""
    for _ in range(2):
        model, recorder = classifier(), Recorder()
        watch = GradWatch(tmp_path, name="job", sinks=[recorder])
        model.fit(*data(64), batch_size=32, verbose=0, callbacks=[watch])
        assert recorder.steps == [0, 1]
        assert watch.state["resumed_from"] == ""


def _known(steps: list[int], counts: list[float]) -> Predecessor:
    return Predecessor("one", np.array(steps), np.array(counts), reach=100)


def test_the_step_of_a_count() -> None:
    """Exact where known, even between, never far beyond the end."""
    plain = _known([0, 10, 20], [0, 10, 20])
    assert [plain.step(c) for c in (0, 7, 20, 21, 120)] == [0, 7, 20, 21, 120]
    assert plain.step(121) is None
    collects = _known([0, 4, 8, 11], [0, 1, 2, 2])  # updates every 4th batch
    assert [collects.step(c) for c in (0, 1, 2, 3)] == [0, 4, 8, 12]
    restored = _known([100, 110], [50, 60])
    assert [restored.step(c) for c in (49, 50, 55)] == [None, 100, 105]
    assert _known([], []).step(3) is None


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """Broken files, other names and runs without a step do not count."""
    for folder, text in (
        ("job-1", "{"),
        ("job-2", '{"run": {"name": "job", "start": 1}, "steps": 0}'),
        ("job-3", '{"run": {"name": "other", "start": 1}, "steps": 5}'),
        ("job-4", "[]"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "state.json").write_text(text)
    assert find_predecessor(tmp_path, "job") is None
    assert find_predecessor(tmp_path / "nowhere", "job") is None


def test_after_a_rollback_the_last_batch_with_a_count_goes_on() -> None:
    """The count falls back; what came before that was undone."""
    steps = np.arange(0, 200, 10)
    counts = np.where(steps < 120, steps, steps - 60).astype(float)
    known = Predecessor("run", steps, counts, 5.0)
    assert known.step(20) == 20
    assert known.step(60) == 120
    assert known.step(105) == 165
    assert known.step(130) == 190
    assert known.step(136) is None
