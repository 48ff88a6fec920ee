"""The black box: what is in it, and that the step can be run again from it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import gradwatch
from gradwatch import GradWatch, GradWatchError, NonFiniteError, blackbox
from gradwatch.capture.contents import contents
from tests.models import (
    BATCH,
    GRAPH,
    MODES,
    ROWS,
    WHOLE,
    Mode,
    classifier,
    data,
    mostly,
)

BAD = 5
ROOT = Path(gradwatch.__file__).parents[1]


def _hurt(rows: int = ROWS, *batches: int) -> tuple[Any, Any]:
    x, y = data(rows)
    for batch in batches or (BAD,):
        x[batch * BATCH + 3] = np.nan
    return x, y


def _fit(model: Any, x: Any, y: Any, *callbacks: Any, **options: Any) -> Any:
    kept = {"verbose": 0, "shuffle": False, "batch_size": BATCH, **options}
    return model.fit(x, y, callbacks=[*callbacks], **kept)


def _watch(path: Path, **options: Any) -> GradWatch:
    return GradWatch(path, xray_every_steps=0, **options)


def _load(watch: GradWatch, name: str = f"step-{BAD}") -> blackbox.BlackBox:
    assert watch.path is not None
    return blackbox.load(watch.path / "blackbox" / name)


def _assert_state(box: blackbox.BlackBox, model: Any) -> None:
    """Asserts that a box holds the state of a model, but for metrics."""
    found = [(g, n, v) for g, n, v in contents(model) if g != "metrics"]
    kept = [*box.arrays["model"].values(), *box.arrays["optimizer"].values()]
    for array, (_, name, variable) in zip(kept, found, strict=True):
        np.testing.assert_array_equal(array, variable.numpy(), err_msg=name)


@pytest.mark.parametrize("mode", mostly(MODES), ids=str)
def test_it_holds_batch_and_state_before_the_step(
    mode: Mode, tmp_path: Path
) -> None:
    """The very batch, and all state that the step began with, bit by bit."""
    x, y = _hurt(WHOLE if mode.jit_compile else ROWS)
    model, other = classifier(mode), classifier(mode)
    watch = _watch(tmp_path)
    _fit(model, x, y, watch)
    before = BAD * BATCH
    _fit(other, x[:before], y[:before], _watch(tmp_path))
    box = _load(watch)
    _assert_state(box, other)
    bad = slice(before, before + BATCH)
    assert isinstance(box.batch, tuple)
    np.testing.assert_array_equal(box.batch[0], x[bad])
    np.testing.assert_array_equal(box.batch[1], y[bad])
    assert box.manifest["step"] == BAD
    assert box.manifest["state"] == {"before": BAD}
    assert box.manifest["notes"] == []
    assert box.manifest["finding"]["rule"] == "nonfinite_batch"
    assert box.manifest["mode"]["jit_compile"] == mode.jit_compile
    assert "keras" in box.manifest["versions"]
    assert [*box.arrays["readings"]["steps"]] == [*range(BAD + 1)]
    loss = box.manifest["slots"].index(["loss", ""])
    losses = box.arrays["readings"]["values"][:, loss]
    assert np.isfinite(losses[:BAD]).all()


PROGRAM = """
import sys
import keras
import numpy as np
from gradwatch import blackbox

def build(jit):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(1e6), "mse", jit_compile=jit)
    return model

def bad(jit, box):
    model = build(jit)
    if box is not None:
        box.restore(model)
    loss = float(model.train_on_batch(*PROBE.batch))
    weights = [np.isfinite(w).all() for w in model.get_weights()]
    return not (np.isfinite(loss) and all(weights))

if __name__ == "__main__":
    for jit, path in zip((False, True), sys.argv[1:]):
        PROBE = blackbox.load(path)
        assert all(np.isfinite(part).all() for part in PROBE.batch)
        print(bad(jit, PROBE), bad(jit, None))
"""


def test_the_step_can_be_run_again_in_another_process(tmp_path: Path) -> None:
    """Finite data that only these weights turn into Inf: both are needed."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    names: dict[str, Any] = {"__name__": "program"}
    exec(PROGRAM, names)
    x = data(WHOLE)[0][:, :4]
    paths = []
    for jit in (False, True):
        watch = _watch(tmp_path / "runs", name=f"jit-{jit}")
        _fit(names["build"](jit), x, x[:, :1], watch)
        (finding,) = [f for f in watch.findings if "nonfinite" in f.rule]
        assert finding.first_step > 1
        assert not finding.evidence["nonfinite_batch"]
        assert watch.path is not None
        (path,) = (watch.path / "blackbox").iterdir()
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, str(program), *paths],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True False"] * 2


def test_any_nest_of_tensors(tmp_path: Path) -> None:
    """Dicts, texts, ragged rows and sample weights come back as they were."""
    words = np.array(["a", "", "bc\0", "d"] * 4, object)
    ragged = tf.ragged.constant([[1.0, 2.0], [], [3.0], [4.0]] * 4)
    inputs = {
        "number": np.linspace(0, 1, 16, dtype=np.float32)[:, None],
        "words": words,
        "ragged": ragged,
    }

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = keras.layers.Dense(1)

        def train_step(self, batch: Any) -> Any:
            inputs, y, weights = batch
            with tf.GradientTape() as tape:
                p = self.out(inputs["number"])
                loss = tf.reduce_mean(weights * (p - y) ** 2)
            used = self.out.trainable_variables
            self.optimizer.apply(tape.gradient(loss, used), used)
            return {"loss": loss}

    y = np.ones((16, 1), np.float32)
    weights = np.ones((16, 1), np.float32)
    weights[9] = np.inf
    rows = tf.data.Dataset.from_tensor_slices((inputs, y, weights))
    model = Net()
    model.compile("sgd")
    model.out.build((None, 1))
    watch = _watch(tmp_path)
    model.fit(rows.batch(8), verbose=0, shuffle=False, callbacks=[watch])
    box = _load(watch, "step-1")
    got, targets, kept = box.batch
    np.testing.assert_array_equal(got["number"], inputs["number"][8:])
    assert got["words"].tolist() == [w.encode() for w in words[8:]]
    assert got["ragged"].kind == "RaggedTensor"
    flat, splits = got["ragged"].parts
    assert tf.RaggedTensor.from_row_splits(flat, splits).to_list() == (
        ragged[8:].to_list()
    )
    np.testing.assert_array_equal(targets, y[8:])
    np.testing.assert_array_equal(kept, weights[8:])


@pytest.mark.parametrize("mode", [GRAPH, MODES[1]], ids=str)
def test_a_run_that_skips_has_one_an_incident(
    mode: Mode, tmp_path: Path
) -> None:
    """With the state before its first step; later ones are held if need be."""
    bad = [BAD, BAD + 1, BAD + 2]
    x, y = _hurt(ROWS, *bad)
    watch = _watch(tmp_path, on_nonfinite="skip")
    model, other = classifier(mode), classifier(mode)
    _fit(model, x, y, watch, epochs=2)
    assert watch.path is not None
    assert len([*(watch.path / "blackbox").iterdir()]) == 1
    box = _load(watch)
    few = slice(BAD * BATCH, (BAD + 1) * BATCH)
    np.testing.assert_array_equal(box.batch[0], x[few])
    assert box.manifest["finding"]["severity"] == "warning"
    assert box.manifest["state"] == {"before": BAD}
    assert box.manifest["held_steps"] == (0 if mode == GRAPH else 9)
    _fit(other, x[: few.start], y[: few.start])
    _assert_state(box, other)


def test_a_run_that_only_records_has_the_state_after(tmp_path: Path) -> None:
    """The batch is that of the step, the model what it has left of it."""
    x, y = _hurt()
    watch = _watch(tmp_path, on_nonfinite="record")
    _fit(classifier(), x, y, watch)
    box = _load(watch)
    assert box.manifest["state"] == {"after": BAD}
    assert np.isnan(box.batch[0]).any()
    weights = box.arrays["model"].values()
    assert any(np.isnan(w).any() for w in weights)


def test_a_step_of_a_fit_that_raises(tmp_path: Path) -> None:
    """It is written before the error leaves `fit`."""
    x, y = _hurt()
    watch = _watch(tmp_path, on_nonfinite="raise")
    with pytest.raises(NonFiniteError):
        _fit(classifier(), x, y, watch)
    assert _load(watch).manifest["state"] == {"before": BAD}


def test_what_is_kept_is_the_users_choice(tmp_path: Path) -> None:
    """Without data, and nothing at all."""
    x, y = _hurt()
    watch = _watch(tmp_path, blackbox="weights")
    _fit(classifier(), x, y, watch)
    box = _load(watch)
    assert box.batch is None
    assert "batch" not in box.arrays
    assert "model" in box.arrays
    watch = _watch(tmp_path, blackbox="off")
    _fit(classifier(), x, y, watch)
    assert watch.path is not None
    assert not (watch.path / "blackbox").exists()


@pytest.mark.parametrize("how", ["no folder", "disk full"])
def test_what_cannot_be_written_is_no_reason_to_fail(
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The incident is told, the run ends well, nothing half is left."""

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    if how == "disk full":
        monkeypatch.setattr(np.lib.format, "write_array", full)
    else:
        monkeypatch.setattr(Path, "rename", full)
    x, y = _hurt()
    watch = _watch(tmp_path)
    with caplog.at_level(logging.WARNING, "gradwatch"):
        _fit(classifier(), x, y, watch)
    assert len(watch.findings) == 1
    assert watch.state["reason"] == "nonfinite"
    assert watch.path is not None
    assert [*(watch.path / "blackbox").iterdir()] == []
    assert "No space left" in caplog.text


DISKS = """
import resource
import sys
from pathlib import Path

import keras
import numpy as np

from gradwatch import GradWatch

class InTheWay(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if how == "a file in the way":
            (watch.path / "blackbox").touch()

x = np.ones((64, 64), np.float32)
x[40] = np.nan
y = np.ones((64, 1), np.float32)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
rooms = {"full": 1024, "nearly full": 24 * 1024}
for how in ("full", "nearly full", "a file in the way"):
    print(how, file=sys.stderr)
    logdir = Path(sys.argv[1]) / how
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = GradWatch(logdir)
    room = rooms.get(how, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0,
              callbacks=[watch, InTheWay()])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [f.rule for f in watch.findings] == ["nonfinite_batch"]
    assert watch.state["reason"] == "nonfinite", watch.state
    assert all(np.isfinite(w).all() for w in model.get_weights())
    boxes = [p.name for p in logdir.glob("*/blackbox/*")]
    print(how, boxes, len(watch.state["autopsies"]))
"""


def test_a_real_disk_that_refuses(tmp_path: Path) -> None:
    """No file may grow any more: the incident is told, and the run ends well.

    A limit on the size of files is what a full disk is to a process. A
    read-only directory refuses nothing to root, so a file stands in the way.
    """
    done = subprocess.run(
        [sys.executable, "-c", DISKS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "full [] 0",
        "nearly full ['step-5'] 1",
        "a file in the way [] 0",
    ]
    _, full, nearly = re.split(
        "^(?:full|nearly full)\n", done.stderr, flags=re.M
    )
    nearly, _, barred = nearly.partition("a file in the way\n")
    for said, refused in ((full, True), (nearly, False), (barred, True)):
        assert ("Step 5 has no black box" in said) is refused


def test_what_is_too_large_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest says what there was, and its size."""
    monkeypatch.setattr(blackbox, "BOX_BYTES", 1300)
    x, y = _hurt()
    watch = _watch(tmp_path)
    _fit(classifier(), x, y, watch)
    box = _load(watch)
    cut = [e for e in box.manifest["arrays"] if "sha256" not in e]
    assert cut
    assert all(e["bytes"] > 0 and e["shape"] is not None for e in cut)
    assert box.batch[0].shape == (BATCH, 8)
    assert any(array is None for array in box.arrays["model"].values())


def test_a_snapshot_by_hand(tmp_path: Path) -> None:
    """Model and optimizer between two steps, at any time."""
    watch = _watch(tmp_path)
    assert watch.snapshot() is None
    model = classifier()
    x, y = data()
    _fit(model, x, y, watch)
    path = watch.snapshot()
    assert path is not None
    assert path.name == "snapshot-17"
    box = blackbox.load(path)
    assert box.manifest["state"] == {"before": 17}
    _assert_state(box, model)
    fresh = classifier()
    box.restore(fresh)
    _assert_state(box, fresh)
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    other.compile("adam", "mse")
    with pytest.raises(GradWatchError, match="the code that was trained"):
        box.restore(other)
    with pytest.raises(OSError, match="snapshot-17"):
        watch.snapshot()


def test_every_dtype_comes_back(tmp_path: Path) -> None:
    """Without pickle, bit by bit, and damage is noticed."""
    arrays = [
        np.array(3.5, ml_dtypes.bfloat16),
        np.array([[np.nan, -0.0]], np.float16),
        np.zeros((0, 3), np.int64),
        np.array([b"a\0", b""], object),
        np.array([True, False]),
    ]
    given = [("model", str(i), array) for i, array in enumerate(arrays)]
    path = tmp_path / "box"
    blackbox.write(path, given, {"step": 0})
    box = blackbox.load(path)
    for array, kept in zip(arrays, box.arrays["model"].values(), strict=True):
        assert kept.dtype == array.dtype
        assert kept.tolist() == array.tolist() or np.isnan(kept).any()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arrays"][4]["sha256"] = "0"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(GradWatchError, match="damaged"):
        blackbox.load(path)
    manifest["version"] = 99
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(GradWatchError, match="Update gradwatch"):
        blackbox.load(path)
