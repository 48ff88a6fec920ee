"""`gradwatch report`, as a user sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradwatch.cli import app
from tests.conftest import Demo


def test_formats(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the file tells, an option too, and `-` prints it."""
    monkeypatch.chdir(tmp_path)
    run = str(demo.run("distance-loss"))
    for options, file in (
        ([], "report.html"),
        (["-o", "x.md"], "x.md"),
        (["--format", "markdown"], "report.md"),
        (["--format", "html", "-o", "y"], "y"),
    ):
        done = CliRunner().invoke(app, ["report", run, *options])
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(f"Written: {file} (0.")
        html = (tmp_path / file).read_text().startswith("<!DOCTYPE html>")
        assert html == (file in ("report.html", "y"))
    printed = CliRunner().invoke(app, ["report", run, "-o", "-"]).stdout
    assert printed.startswith("<!DOCTYPE html>")


def test_markdown(demo: Demo) -> None:
    """Run, result, finding with evidence and advice, autopsy, last values."""
    command = ["report", "--format", "markdown", "-o", "-"]
    run = str(demo.run("distance-loss"))
    told = CliRunner().invoke(app, [*command, run]).stdout
    first = told.partition("\n")[0]
    assert first == r"## distance\-loss: Failed: nonfinite"
    for said in (
        "of 580 steps",
        r"**critical** · nonfinite\_gradient",
        "| evidence | value |",
        "**Autopsy of step ",
        r"`sqrt\(x \+ 1e\-12\)\`",
        "| gradient norm | NaN |",
    ):
        assert said in told
    healthy = CliRunner().invoke(app, [*command, str(demo.run("healthy"))])
    assert "no findings" in healthy.stdout
    assert "### Findings" not in healthy.stdout


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "Expected a run directory, with the file state.json."),
        ('{"version": 1}', "It is damaged, or gradwatch has not written it."),
        ("[", "It is damaged, or gradwatch has not written it."),
        ('{"version": 99}', "Use the gradwatch that wrote it."),
    ],
)
def test_what_is_no_run(tmp_path: Path, state: str | None, said: str) -> None:
    """It is said what was expected, and nothing is written."""
    if state:
        (tmp_path / "state.json").write_text(state)
    file = tmp_path / "x.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path), "-o", str(file)])
    assert done.exit_code == 1
    assert said in done.stderr
    assert not file.exists()
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
    assert missing.exit_code == 1
    assert "Expected a run directory" in missing.stderr


def test_a_missing_package_is_named(demo: Demo, tmp_path: Path) -> None:
    """Markdown does without, and no TensorFlow is loaded."""
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from typer.testing import CliRunner\n"
        "from gradwatch.cli import app\n"
        "run, file = sys.argv[1:]\n"
        "done = CliRunner().invoke(app, ['report', run, '-o', file])\n"
        "assert done.exit_code == 1\n"
        "assert \"pip install 'gradwatch[report]'\" in done.stderr\n"
        "done = CliRunner().invoke(app, ['report', run, '-o', file + '.md'])\n"
        "assert done.exit_code == 0, done.output\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    run = str(demo.run("healthy"))
    command = [sys.executable, "-c", code, run, str(tmp_path / "x")]
    subprocess.run(command, check=True)
