"""`gradwatch compare`, as a user sees it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradwatch.cli import app
from tests.compare.runs import STEPS, train


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs, the last one of another learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "one")
    train(folder, "two")
    train(folder, "fast", rate=0.06)
    return folder


def run(logdir: Path, *arguments: str) -> tuple[int, str, str]:
    """Returns exit status, output and errors of a comparison."""
    command = ["compare", *arguments, "--logdir", str(logdir)]
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.stdout, done.stderr


def test_by_directory_id_or_name(logdir: Path) -> None:
    """All lead to the same; exit status 0 where runs are the same."""
    (one,) = logdir.glob("one-*")
    (two,) = logdir.glob("two-*")
    seen = {
        run(logdir, *names)[:2]
        for names in (("one", "two"), (one.name, str(two)), (str(one), "two"))
    }
    ((status, output),) = seen
    assert status == 0
    lines = output.splitlines()
    assert lines[:2] == [f"A  {one.name}", f"B  {two.name}"]
    assert lines[3] == (
        f"The same. All {STEPS} steps that both have recorded are the same to "
        "the bit."
    )
    assert "Set-up: the same" in lines
    assert "\x1b" not in output


def test_what_differs_is_shown(logdir: Path) -> None:
    """Set-up, the first step, numbers side by side, curves; exit status 3."""
    status, output, said = run(logdir, "one", "fast")
    assert (status, said) == (3, "")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in (
        "optimizer.learning_rate 0.05 0.06",
        "Step 0, causes before effects",
        "learning_rate 0.05 0.06 0.17",
        "steps 16 16",
        "Findings: none",
    ):
        assert line in lines
    assert "They part at step 0" in output
    places = [output.index(title) for title in ("Set-up", "Step 0", "Side by")]
    assert places == sorted(places)
    curves = lines[lines.index("Over the steps") + 1 :]
    assert [int(line.split()[0]) for line in curves[1:]][::11] == [0, 15]


def test_as_json(logdir: Path) -> None:
    """The same data, every name with both values."""
    status, output, _ = run(logdir, "one", "fast", "--json")
    told = json.loads(output)
    assert status == 3
    assert told["readings"]["verdict"] == "different"
    assert told["readings"]["differences"][0]["signal"] == "learning_rate"
    assert told["readings"]["alike"]["variable_gradient_norm"] == 6
    (fact,) = told["setup"]
    assert fact["values"] == pytest.approx([0.05, 0.06])
    assert len(told["curves"]["series"]["loss"][1]) == STEPS
    assert told["story"][0].startswith("They part at step 0")


def test_as_html(logdir: Path, tmp_path: Path) -> None:
    """Two lines in each chart, all tables; no text of a run is markup."""
    (one,) = logdir.glob("one-*")
    evil = shutil.copytree(one, tmp_path / "evil")
    state = json.loads((evil / "state.json").read_text())
    state["run"]["labels"] = {"note": "<script>boom()</script>"}
    (evil / "state.json").write_text(json.dumps(state))
    file = tmp_path / "both.html"
    status, *_ = run(logdir, str(evil), "fast", "--html", str(file))
    page = file.read_text()
    assert status == 3
    assert page.count('<path class="line s0"') == 4
    assert page.count('<path class="line s1"') == 4
    assert page.count('<path class="event critical"') == 4
    assert "<code>learning_rate</code> 0.05 and 0.06" in page
    assert "<td>optimizer.learning_rate</td><td>0.05</td><td>0.06</td>" in page
    assert "&lt;script&gt;boom()" in page
    assert "<script" not in page
    assert not {"http:", "https:", "url("} & set(re.findall(r"\w+[:(]", page))


def test_html_says_which_package_is_missing(logdir: Path) -> None:
    """Without the extra the message says what to install."""
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from gradwatch.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "compare", "one", "two"]
    done = subprocess.run(
        [*command, "--logdir", str(logdir), "--html", str(logdir / "x.html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'gradwatch[report]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_compared(logdir: Path, tmp_path: Path) -> None:
    """No such run, more than one, and runs without a common step."""
    status, output, said = run(logdir, "one", "three")
    assert (status, output) == (1, "")
    assert "Received: 'three'. Name a folder below `logdir`" in said
    (tmp_path / "one-20260101-000000-abcdef").mkdir()
    (tmp_path / "one-20260101-000000-abcdef" / "state.json").write_text("{")
    status, _, said = run(logdir, "one", "two", "--logdir", str(tmp_path))
    assert status == 1
    assert "Name one of " in said
    status, _, said = run(logdir, "one", str(next(tmp_path.iterdir())))
    assert (status, "It is damaged" in said) == (1, True)
    (one,) = logdir.glob("one-*")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "state.json").write_bytes((one / "state.json").read_bytes())
    status, output, said = run(logdir, "one", str(bare))
    assert (status, "No step is recorded in both" in said) == (1, True)
    assert "Set-up" in output


def test_in_a_terminal_it_has_colours(logdir: Path) -> None:
    """And loads neither Keras nor TensorFlow."""
    code = (
        "import sys\n"
        "from gradwatch.cli import app\n"
        "try:\n"
        "    app(sys.argv[1:])\n"
        "finally:\n"
        "    assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "compare", "one", "two"]
    done = subprocess.run(
        [*command, "--logdir", str(logdir)],
        capture_output=True,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"},
        check=True,
    )
    assert "\x1b[1;32mThe same." in done.stdout
