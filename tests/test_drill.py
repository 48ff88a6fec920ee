"""`gradwatch drill`, as a user sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradwatch import default_rules
from gradwatch.cli import app
from gradwatch.testing.drills import DRILLS

LONG = {"hang": "330"}  # seconds; the others need not last


def test_the_list() -> None:
    """Scenarios, what must be said, and the alert; without TensorFlow."""
    shown = CliRunner().invoke(app, ["drill", "--list"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in DRILLS)
    plain = CliRunner().invoke(app, ["drill", "--list", "--json"])
    drills = {each["name"]: each for each in json.loads(plain.stdout)}
    assert drills["kill"]["alert"] == "GradwatchRunLost"
    code = (
        "import sys; from typer.testing import CliRunner\n"
        "from gradwatch.cli import app\n"
        "CliRunner().invoke(app, ['drill', '--list'])\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_scenario() -> None:
    """It is said which there are."""
    done = CliRunner().invoke(app, ["drill", "--scenario", "flood"])
    assert done.exit_code == 2
    assert "nan_batch" in done.stderr
    assert CliRunner().invoke(app, ["drill"]).exit_code == 2


def test_rules_exist() -> None:
    """What must be said can be said."""
    names = {rule.name for rule in default_rules()}
    for each in DRILLS.values():
        assert set(each.rules) <= names


def test_a_drill_that_passes(tmp_path: Path) -> None:
    """It prints fault, finding, state and alert, each with its seconds."""
    command = ["drill", "--scenario", "nan_batch", "--logdir", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    (run,) = tmp_path.glob("drill-nan_batch-*")
    for said in (
        f"Run: {run}\n",
        "Step 100: the batch's first example is nan.\n",
        " s  critical: nonfinite_batch from step 100 on: ",
        " s  failed (nonfinite)\n",
        "Passed. The alert that must reach you now: GradwatchNonfiniteBatch.\n",
    ):
        assert said in done.stdout


def test_a_drill_that_fails(tmp_path: Path) -> None:
    """What the training said is shown, and the exit status is 1."""
    command = ["drill", "--scenario", "slow_steps", "--at-step", "3", "--json"]
    done = CliRunner().invoke(app, [*command, "--logdir", str(tmp_path)])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert not told["passed"]
    assert "`at_step`: Expected 11 or more. Received: 3." in told["error"]


@pytest.mark.acceptance
@pytest.mark.parametrize("name", DRILLS)
def test_every_scenario(name: str, tmp_path: Path) -> None:
    """Each passes, with the service's own limits."""
    command = ["drill", "--scenario", name, "--logdir", str(tmp_path)]
    command += ["--seconds", LONG.get(name, "5"), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["passed"]
    assert told["next_alert"] == DRILLS[name].alert
