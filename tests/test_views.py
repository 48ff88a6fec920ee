"""The commands that look at runs, as they are used: in terminals and pipes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from gradwatch import GradWatch
from gradwatch.cli import app
from gradwatch.records import Autopsy, Beat, Finding, Phase, Run, Schema
from gradwatch.runstate import RunState
from gradwatch.sinks.findings import FindingsSink
from gradwatch.sinks.state import StateSink
from tests.models import classifier, data
from tests.test_cli import COMMAND, write_run

SPIKE = Finding(
    "gradient_spike",
    "warning",
    "dense/kernel",
    3,
    5,
    {"gradient_norm": 1234.56789, "names": ["a", "b"]},
    ("A rare batch.",),
    "The gradient's norm jumped \x1b[31mto 1235.",
    "Clip it.",
)
BAD = Finding("nonfinite_loss", "critical", "", 7, 7, {}, (), "NaN.", "Look.")


_INTERRUPTIBLE = [
    sys.executable,
    "-c",
    # What a shell runs in the background ignores Ctrl-C, as do its children.
    "import signal as s; s.signal(s.SIGINT, s.default_int_handler); "
    "from gradwatch.cli import main; main()",
]


class Trainer:
    """Writes what a trainer writes, when it is told to.

    Args:
        path: the run directory, named by the run's id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run = Run(path.name, path.name, time.time(), "host", {}, {})
        self._state = RunState(self._run)
        self._findings = FindingsSink(path)
        self._findings.open(self._run, Schema())
        self.beat("running")

    def beat(self, phase: Phase, age: float = 0.0) -> None:
        """Gives a sign of life that is `age` seconds old."""
        now = time.time() - age
        self._state.fold(Beat(now, phase, 0, now + 15))
        StateSink(self.path, self._state).close()

    def find(self, record: Finding | Autopsy) -> None:
        """Finds something; state.json knows at the next beat."""
        self._state.fold(record)
        self.write(record)

    def write(self, record: Finding | Autopsy) -> None:
        """Appends it to findings.jsonl."""
        self._findings.write(record)

    def end_late(self) -> threading.Thread:
        """Fails with a last finding, whose line comes a second later."""
        self._state.fold(SPIKE)
        self.beat("failed")
        late = threading.Timer(1.0, self.write, [replace(SPIKE, last_step=9)])
        late.start()
        return late


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """A run that has begun."""
    return Trainer(tmp_path / "run")


def test_findings_are_told_in_order(trainer: Trainer) -> None:
    """Head, message, advice, causes, evidence; no control character."""
    trainer.find(SPIKE)
    done = CliRunner().invoke(app, ["findings", str(trainer.path)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "warning: gradient_spike at steps 3 to 5: dense/kernel",
        "    The gradient's norm jumped [31mto 1235.",
        "    Advice: Clip it.",
        "    Perhaps: A rare batch.",
        "    gradient_norm = 1234.57",
        '    names = ["a", "b"]',
    ]
    trainer.find(BAD)
    done = CliRunner().invoke(app, ["findings", str(trainer.path)])
    assert done.exit_code == 3
    assert done.stdout.index("gradient_spike") < done.stdout.index("nonfinite")


def test_findings_as_json(trainer: Trainer) -> None:
    """One line of strict JSON each; none where there is none."""
    command = ["findings", "--json", str(trainer.path)]
    none = CliRunner().invoke(app, command)
    assert (none.exit_code, none.stdout) == (0, "")
    trainer.find(SPIKE)
    trainer.find(BAD)
    done = CliRunner().invoke(app, command)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Finding.from_json(each) for each in told] == [SPIKE, BAD]


def test_findings_of_no_run(tmp_path: Path, trainer: Trainer) -> None:
    """A folder that is none is an error; a run without findings says so."""
    done = CliRunner().invoke(app, ["findings", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Expected a run directory, with the file state.json" in done.stderr
    silent = CliRunner().invoke(app, ["findings", str(trainer.path)])
    assert (silent.exit_code, silent.stdout) == (0, "no findings\n")


def test_follow_tells_new_ones_until_the_end(trainer: Trainer) -> None:
    """At once, an explained one again, then it ends; the last may be late."""
    trainer.find(SPIKE)
    command = [*COMMAND, "findings", str(trainer.path), "--follow", "--json"]
    process = subprocess.Popen(command, stdout=-1, text=True)
    assert process.stdout

    def read() -> Finding:
        assert process.stdout
        return Finding.from_json(json.loads(process.stdout.readline()))

    assert read() == SPIKE
    trainer.find(BAD)
    began = time.monotonic()
    assert read() == BAD
    assert time.monotonic() - began < 5  # it looks every half a second
    trainer.find(Autopsy("model", step=7))
    assert read().message.startswith("NaN. ")
    late = trainer.end_late()
    rest, _ = process.communicate(timeout=30)
    late.join()
    assert Finding.from_json(json.loads(rest)).last_step == 9
    assert process.returncode == 3


class Onlooker(keras.callbacks.Callback):
    """Follows the findings of the fit that it is part of.

    Args:
        watch: of the fit.
    """

    def __init__(self, watch: GradWatch) -> None:
        super().__init__()
        self._watch = watch
        self.told: list[Finding] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Begins at the fourth batch; waits for what the tenth brings."""
        run = self._watch.path
        if batch == 3 and run is not None:
            for _ in range(200):
                time.sleep(0 if (run / "state.json").exists() else 0.05)
            command = [*COMMAND, "findings", str(run), "--follow", "--json"]
            self.process = subprocess.Popen(command, stdout=-1, text=True)
        if batch == 9:
            assert self.process.stdout
            assert select.select([self.process.stdout], [], [], 30)[0]
            line = self.process.stdout.readline()
            self.told.append(Finding.from_json(json.loads(line)))


def test_follow_a_live_fit(tmp_path: Path) -> None:
    """Its findings are read while it goes on; the follower ends with it."""
    x, y = data(512)
    x[8 * 32] = np.nan
    watch = GradWatch(tmp_path, on_nonfinite="skip", xray_every_steps=0)
    onlooker = Onlooker(watch)
    classifier().fit(
        x, y, 32, shuffle=False, verbose=0, callbacks=[watch, onlooker]
    )
    rest, _ = onlooker.process.communicate(timeout=30)
    assert [f.first_step for f in onlooker.told] == [8]
    assert onlooker.told == watch.findings
    assert rest == ""
    assert onlooker.process.returncode == 0


def test_follow_ends_when_the_run_is_lost(trainer: Trainer) -> None:
    """A killed trainer never says its last."""
    trainer.beat("running", age=100)
    command = ["findings", "-f", str(trainer.path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert re.search(
        r"lost: its last sign of life came 10\d s ago", done.stderr
    )


def _shown(descriptor: int, wanted: str, seconds: float = 20.0) -> str:
    """Reads a terminal until something is shown."""
    text, deadline = "", time.monotonic() + seconds
    while wanted not in text and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            text += os.read(descriptor, 65536).decode()
    assert wanted in text
    return text


def test_watch_in_a_terminal(tmp_path: Path) -> None:
    """The table changes in place; Ctrl-C ends it and gives the cursor back."""
    root = tmp_path / "runs"
    command = [*_INTERRUPTIBLE, "status", "--watch", "--interval", "0.2"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command, "--logdir", str(root)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm"},
    )
    try:
        os.close(theirs)
        assert "\x1b[?25l" in _shown(ours, "no run yet")  # it hides the cursor
        write_run(root, "broken", phase="failed")
        shown = _shown(ours, "failed (nonfinite)")
        assert "\x1b[1A\x1b[2K" in shown  # lines above are written again
        assert "\x1b[31mfailed" in shown
        process.send_signal(signal.SIGINT)
        rest = _shown(ours, "\x1b[?25h")
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        os.close(ours)
    assert "Traceback" not in rest
    assert "Abort" not in rest


@pytest.mark.parametrize("as_json", [False, True])
def test_watch_in_a_pipe(tmp_path: Path, as_json: bool) -> None:
    """One table or line after the other, without a control character."""
    write_run(tmp_path, "alive")
    command = [*_INTERRUPTIBLE, "status", "--watch", "--interval", "0.2"]
    command += ["--json"] if as_json else []
    process = subprocess.Popen(
        [*command, "--logdir", str(tmp_path)], stdout=-1, stderr=-1, text=True
    )
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(3 if as_json else 8)]
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (0, "")
    assert "\x1b" not in "".join(lines) + rest
    if as_json:
        told = [json.loads(line)[0]["run"] for line in lines]
        assert told == ["alive"] * 3
    else:
        heads = [li for li in lines if re.match(r"\d{4}-.* UTC$", li)]
        assert len(heads) == 2
        assert len([li for li in lines if li.startswith("alive ")]) == 2


def test_completion_in_bash(tmp_path: Path) -> None:
    """`--install-completion` is for good; it completes commands and options."""
    command = tmp_path / "gradwatch"
    code = "from gradwatch.cli import main; main()"
    command.write_text(f"#!{sys.executable}\n{code}\n")
    command.chmod(0o755)
    script = (
        "shown=$(gradwatch --show-completion)\n"
        "gradwatch --install-completion >&2\n"
        "source ~/.bashrc\n"
        'grep -qF "$shown" ~/.bash_completions/gradwatch.sh && echo same\n'
        "COMP_WORDS=(gradwatch find); COMP_CWORD=1\n"
        "_gradwatch_completion gradwatch; echo ${COMPREPLY[@]}\n"
        "COMP_WORDS=(gradwatch status --wa); COMP_CWORD=2\n"
        "_gradwatch_completion gradwatch; echo ${COMPREPLY[@]}\n"
    )
    home = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["same", "findings", "--watch"], done
