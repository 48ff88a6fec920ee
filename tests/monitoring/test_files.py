"""What is committed is what is generated, and the command that does it."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gradwatch.cli import app
from gradwatch.monitoring.alerts import alert_groups, recorded
from gradwatch.monitoring.files import differing, files
from gradwatch.monitoring.thresholds import THRESHOLDS, Settings

ROOT = Path(__file__).parents[2]


def build(*arguments: object) -> Any:
    """Runs `gradwatch monitoring build`."""
    return CliRunner().invoke(
        app, ["monitoring", "build", *map(str, arguments)]
    )


def test_the_committed_files_are_current(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `make check` does: from the repository's root, without arguments."""
    monkeypatch.chdir(ROOT)
    done = build("--check")
    assert (done.exit_code, done.output) == (0, "")
    folders = ("prometheus", "alertmanager", "compose", "kubernetes")
    kinds = (*(f"{folder}/*.yml" for folder in folders), "RUNBOOK.md")
    kinds = (*kinds, "grafana/*.json")
    there = {
        str(path.relative_to(ROOT / "dashboards"))
        for kind in kinds
        for path in (ROOT / "dashboards").glob(kind)
    }
    assert there == set(files(Settings()))


def test_check_sees_what_is_edited_or_missing(tmp_path: Path) -> None:
    """It names the file, says what to do, and writes nothing."""
    assert build("--out", tmp_path).exit_code == 0
    path = tmp_path / "prometheus" / "alerts.yml"
    path.write_text(path.read_text().replace("> 45", "> 46"))
    (tmp_path / "RUNBOOK.md").unlink()
    done = build("--out", tmp_path, "--check")
    assert done.exit_code == 1
    assert "prometheus/alerts.yml, RUNBOOK.md" in done.output
    assert "gradwatch monitoring build" in done.output
    assert not (tmp_path / "RUNBOOK.md").exists()


def test_own_numbers_reach_the_rules(tmp_path: Path) -> None:
    """A threshold, a job and the URLs are where they belong."""
    done = build(
        *("--out", tmp_path, "--job", "trainers"),
        *("--threshold", "lost_seconds=90", "--runbook", "https://wiki/r"),
        *("--grafana", "https://g", "--webhook", "https://hook/"),
    )
    assert done.exit_code == 0
    rules = (tmp_path / "prometheus" / "alerts.yml").read_text()
    assert '{job="trainers"})) > 90 < 86400' in rules
    assert 'job="gradwatch"' not in rules
    assert "runbook_url: https://wiki/r#gradwatchrunlost" in rules
    assert "dashboard_url: https://g/d/gradwatch-fleet" in rules
    routes = (tmp_path / "alertmanager" / "alertmanager.yml").read_text()
    assert routes.count("url: https://hook/") == 2
    assert "| `lost_seconds` | 90 |" in (tmp_path / "RUNBOOK.md").read_text()
    assert not (tmp_path / "prometheus" / "tests.yml").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("lost=1", "Expected one of finding_seconds, "),
        ("lost_seconds=abc", "Expected lost_seconds=NUMBER above 0. Received"),
        ("lost_seconds=-1", "Expected lost_seconds=NUMBER above 0. Received"),
        ("lost_seconds=nan", "Expected lost_seconds=NUMBER above 0. Received"),
        ("lost_seconds", "Expected lost_seconds=NUMBER above 0. Received"),
    ],
)
def test_wrong_thresholds_are_refused(
    tmp_path: Path, given: str, said: str
) -> None:
    """The error says what was expected and received, and nothing is written."""
    done = build("--out", tmp_path / "new", "--threshold", given)
    assert done.exit_code == 1
    assert said in done.output
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """One line, no traceback."""
    (tmp_path / "file").touch()
    done = build("--out", tmp_path / "file")
    assert done.exit_code == 1
    assert done.output.count("\n") == 1


def test_without_yaml_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyYAML is an extra; the rest of the command line does without."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "gradwatch.monitoring.files")
    done = build()
    assert done.exit_code == 1
    assert "pip install 'gradwatch[monitoring]'" in done.output


def test_files_are_yaml_without_surprises(tmp_path: Path) -> None:
    """They can be read back, and differ from nothing once written."""
    found = files(Settings())
    for name, text in found.items():
        if name.endswith(".yml"):
            assert yaml.safe_load(text)
    assert differing(tmp_path, found) == list(found)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_threshold_is_in_a_rule(name: str) -> None:
    """Another number makes other rules."""
    changed = Settings({name: THRESHOLDS[name].default * 1.5})
    assert (recorded(changed), alert_groups(changed)) != (
        recorded(Settings()),
        alert_groups(Settings()),
    )
    assert THRESHOLDS[name].meaning.endswith(".")


def test_scaled_durations_have_a_floor() -> None:
    """A sign of life comes every 5 s, however the rest is scaled."""
    scaled = Settings(time_scale=0.01)
    assert scaled.value("lost_seconds") == 15
    assert scaled.value("finding_seconds") == 36
    assert scaled.value("stalled_run_steps") == 20
    assert scaled.scaled(120) == pytest.approx(1.2)
    assert Settings({"lost_seconds": 5}).value("lost_seconds") == 5
