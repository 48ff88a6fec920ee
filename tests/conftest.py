"""What tests of several folders share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis  # noqa: F401  before `_frozen`: its plugins ask for referrers
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# XLA takes most of its time for machine code that then runs a few steps.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


class Demo(NamedTuple):
    """What `gradwatch demo` left behind.

    Attributes:
        logdir: folder with the two run directories.
        output: what it printed.
    """

    logdir: Path
    output: str

    def run(self, name: str) -> Path:
        """Returns the directory of the run of this name."""
        (path,) = self.logdir.glob(f"{name}-*")
        return path


@pytest.fixture(autouse=True)
def _autopsies(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most tests make no autopsy: a second for each would add up.

    Those marked `autopsy` have the default that users have; so has all that
    runs in a process of its own: the demo.
    """
    callback = sys.modules.get("gradwatch.callback")
    if callback is not None and "autopsy" not in request.keywords:
        defaults = callback.GradWatch.__init__.__kwdefaults__
        monkeypatch.setitem(defaults, "autopsy_seconds", 0.0)


@pytest.fixture(autouse=True)
def _frozen() -> None:
    """What TensorFlow never lets go of is not looked through again and again.

    Without gradwatch the graph of each fit stays for the life of the process,
    held by gradients that were registered in it: 4 GB after a thousand fits,
    and a full collection took half a minute, in which no thread runs and every
    deadline passes. No test asks for those of an earlier one. It is done before
    a test, when nothing holds what an earlier one used.
    """
    ops = sys.modules.get("tensorflow.python.framework.ops")
    if ops is not None:
        gradients = ops.gradient_registry._registry
        for name in [n for n in gradients if n.startswith("CustomGradient-")]:
            del gradients[name]
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _untuned() -> None:
    """Data that is not at its end is let go of at once.

    The thread that tunes an iterator's buffers is told that it is over before
    it can see so (TensorFlow 2.21, `Model::OptimizeLoop` and
    `CancellationManager`), and where it is quick it waits for its next round:
    up to a minute, in which the iterator's destructor holds the interpreter's
    lock. 20 s were seen in plain `tf.data`, on a machine that is busy.
    """
    data = sys.modules.get("tensorflow.python.data.ops.dataset_ops")
    if data is None:
        return
    applied = data.DatasetV2._apply_debug_options

    def untuned(dataset: Any) -> Any:
        options = data.options_lib.Options()
        options.autotune.enabled = False
        return applied(dataset.with_options(options))

    data.DatasetV2._apply_debug_options = untuned


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, run once as a user runs it, in a process of its own."""
    logdir = tmp_path_factory.mktemp("demo") / "runs"
    command = [sys.executable, "-m", "gradwatch.cli", "demo"]
    done = subprocess.run(
        [*command, "--logdir", str(logdir)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "COLUMNS": "100"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Demo(logdir, done.stdout)
