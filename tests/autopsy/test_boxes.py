"""A black box is opened in a fresh process, and its step explained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from gradwatch import GradWatch
from gradwatch.autopsy.boxes import examine_all
from gradwatch.errors import GradWatchError

_TRAIN = """
import keras
import tensorflow as tf


def distance(y, p):
    return tf.reduce_mean(tf.norm(y - p, axis=-1))


def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.01), distance, jit_compile=JIT)
    return model
"""


@pytest.mark.parametrize("jit", [False, True])
def test_a_bad_step_is_explained_in_another_process(
    jit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `fit` that stops to the operation and line, by the command line."""
    code = _TRAIN.replace("JIT", str(jit))
    (tmp_path / "train_it.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "train_it", raising=False)
    import train_it  # type: ignore[import-not-found]

    model = train_it.build()
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    y = np.repeat(np.array([[1, 1], [0, 0]], np.float32), 32, axis=0)
    model.layers[0].kernel.assign(np.zeros((4, 2)))  # all answers are 0
    weights = model.get_weights()
    model.optimizer.learning_rate = 0.0
    watch = GradWatch(tmp_path / "runs")
    model.fit(x, y, shuffle=False, verbose=0, callbacks=[watch])
    assert [f.first_step for f in watch.findings] == [1]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gradwatch.cli", "autopsy"),
            *(str(watch.path), "--model", "train_it:build", "--json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["step"], found["operation"]) == (1, "Sqrt")
    assert (found["phase"], found["verdict"]) == ("backward", "model")
    assert found["reproducible"]
    assert found["mode"] == ("xla" if jit else "graph")
    assert "tf.norm(y - p, axis=-1)" in found["source"]["text"]
    assert watch.path is not None
    box = watch.path / "blackbox" / "step-1"
    assert json.loads((box / "autopsy.json").read_text()) == found
    assert (
        "Sqrt is not finite in distance (train_it.py:"
        in (box / "autopsy.md").read_text()
    )
    state = json.loads((watch.path / "state.json").read_text())
    (told,) = state["autopsies"]
    assert (told["step"], told["verdict"]) == (1, "model")
    assert "Sqrt is not finite" in told["headline"]
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_run_without_a_bad_step_has_no_autopsy(tmp_path: Path) -> None:
    """The error says what leaves a black box."""
    with pytest.raises(GradWatchError, match="blackbox/step-<n>"):
        next(examine_all(tmp_path, keras.Sequential))
