"""The documentation is true: its code runs, and what it names exists."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer

import gradwatch
from gradwatch.cli import app
from gradwatch.families import families
from gradwatch.signals import SIGNALS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
RULES = tuple(rule.name for rule in gradwatch.default_rules())

# In a run directory, not in the repository; checked against a real one.
WRITTEN = {"anatomy.json", "state.json", "findings.jsonl", "blackbox"}

# In a black box: see `test_blackbox.py` and `autopsy/test_boxes.py`.
BOXED = {"manifest.json", "autopsy.json", "autopsy.md"}


def read(page: str) -> str:
    """Returns the text of a page."""
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> Iterator[tuple[int, str]]:
    """Yields the lines before each fenced block, and its code."""
    text = read(page)
    fenced = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.M)
    for found in fenced.finditer(text):
        yield text.count("\n", 0, found.start(1)), found[1]


def run_page(page: str) -> dict[str, Any]:
    """Runs the Python of a page from top to bottom, as a reader would."""
    names: dict[str, Any] = {"__name__": page}
    for line, code in blocks(page, "python"):
        source = "\n" * line + code  # so that a traceback names the line
        exec(compile(source, str(ROOT / page), "exec"), names)
    return names


@pytest.mark.autopsy
def test_readme_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All Python of the README runs, and the run directories are as it says."""
    monkeypatch.chdir(tmp_path)
    names = run_page("README.md")
    printed = capsys.readouterr().out
    for said in ("no findings", "nonfinite_batch ('data',)\nTrue\n"):
        assert said in printed
    assert isinstance(names["watch"], gradwatch.GradWatch)
    files = {path.name for path in tmp_path.glob("runs/*/*")}
    events = {name for name in files if name.startswith("events.out.tfevents.")}
    assert events
    assert files - events == WRITTEN


def test_contributing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All Python of CONTRIBUTING runs: its rule, signal and sink work."""
    monkeypatch.chdir(tmp_path)
    assert "LargeGradient" in run_page("CONTRIBUTING.md")


@pytest.mark.parametrize(
    "name",
    [
        *RULES,
        *SIGNALS,
        *gradwatch.__all__,
        *(family.name for family in families().values()),
        *sorted(WRITTEN),
    ],
)
def test_readme_mentions(name: str) -> None:
    """Rules, signals, metrics, public names and files are in the README."""
    assert f"`{name}`" in read("README.md")


def test_readme_mentions_arguments() -> None:
    """Every argument of `GradWatch` and every policy is in the README."""
    for name in inspect.signature(gradwatch.GradWatch).parameters:
        assert f"| `{name}` |" in read("README.md")
    for policy in ("stop", "raise", "skip", "rollback", "record"):
        assert f'| `"{policy}"' in read("README.md")


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yields each command with its full name, those of groups too."""
    for part, inner in getattr(command, "commands", {}).items():
        yield f"{name} {part}", inner
        yield from commands(f"{name} {part}", inner)


def test_readme_mentions_commands() -> None:
    """Every command is in the README, with all of its options."""
    for name, command in commands("gradwatch", typer.main.get_command(app)):
        usage = f"Usage: {name} [OPTIONS]"
        _, found, after = read("README.md").partition(usage)
        assert found
        for option in command.params:
            assert option.opts[0] in after.partition("```")[0]


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    """No page names a file or folder that does not exist."""
    named = re.findall(
        r"`([\w./-]+(?:\.(?:py|md|toml|txt|jsonl?|svg)|/)|\.ci/\w+)`",
        read(page),
    )
    places = (ROOT, ROOT / "gradwatch")
    missing = {
        name
        for name in set(named) - WRITTEN - BOXED
        if not any((place / name).exists() for place in places)
    }
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Links to files and to headings of the same page have a target."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    anchors = {
        "#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if not target.startswith("https://"):
            assert target in anchors or (ROOT / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    """`make` can make what the pages tell to make."""
    targets = re.findall(r"^(\w+):", read("Makefile"), re.M)
    named = re.findall(r"(?:`|^)make (\w+)", read(page), re.M)
    assert set(named) <= set(targets)


def test_no_machine_paths() -> None:
    """No page, example or picture holds a path of the machine it came from."""
    files = [*PAGES, *(f"examples/{p.name}" for p in ROOT.glob("examples/*.*"))]
    places = {str(ROOT), str(Path.home()), tempfile.gettempdir(), sys.prefix}
    for place in places - {"/"}:
        assert [f for f in files if place in read(f)] == []


def test_changelog_has_unreleased_part() -> None:
    """The CHANGELOG begins with what is not released, decisions included."""
    _, _, after = read("CHANGELOG.md").partition("\n## [Unreleased]\n")
    unreleased = after.partition("\n## ")[0]
    assert "\n### Added\n" in unreleased
    assert "\n### Decisions\n" in unreleased


def test_picture_is_small_and_shows_the_finding() -> None:
    """The README's picture is well-formed, small and of a run that broke."""
    picture = ROOT / "examples" / "terminal.svg"
    assert picture.stat().st_size < 150_000
    text = "".join(ElementTree.parse(picture).getroot().itertext())
    assert "nonfinite_gradient" in text


@pytest.fixture
def prometheus_file(tmp_path: Path) -> Path:
    """The README's configuration of Prometheus, beside `dashboards/`."""
    ((_, code),) = blocks("README.md", "yaml")
    (tmp_path / "dashboards").symlink_to(ROOT / "dashboards")
    file = tmp_path / code.partition("\n")[0].removeprefix("# ")
    file.write_text(code)
    return file


def promtool(*arguments: str) -> None:
    """Runs promtool and asserts that it is content."""
    binary = shutil.which("promtool")
    if not binary:
        pytest.fail("`promtool` is not installed: apt install prometheus")
    done = subprocess.run(
        [binary, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_scrape_configuration_is_valid(prometheus_file: Path) -> None:
    """Prometheus accepts the README's configuration and its rules."""
    promtool("check", "config", str(prometheus_file))
    assert "alerts.yml" in prometheus_file.read_text()
