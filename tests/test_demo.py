"""The demo, as a user sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch import GradWatch
from gradwatch.autopsy.boxes import examine_all
from gradwatch.sinks.findings import read_findings
from gradwatch.sinks.readings import read_blocks
from gradwatch.testing.digits import (
    digits,
    digits_model,
    distance,
    distance_model,
)
from tests.conftest import Demo
from tests.monitoring.boards import ASKED, filled
from tests.monitoring.stack import monitoring, serving


def _state(path: Path) -> Any:
    return json.loads((path / "state.json").read_text())


def test_healthy_run_is_silent(demo: Demo) -> None:
    """The first run finishes all its steps without a finding."""
    state = _state(demo.run("healthy"))
    assert state["phase"] == "finished"
    assert state["steps"] == state["planned_steps"] == 580
    assert read_findings(demo.run("healthy")) == []


def test_broken_run_is_named(demo: Demo) -> None:
    """The second stops at a step that is named, with the variables hit."""
    path = demo.run("distance-loss")
    (finding,) = read_findings(path)
    state = _state(path)
    assert finding.rule == "nonfinite_gradient"
    assert finding.first_step == state["steps"] - 1 < 580
    assert (state["phase"], state["reason"]) == ("failed", "nonfinite")
    assert len(finding.evidence["nonfinite_gradients"]) == 6
    assert np.isfinite(float(finding.evidence["loss"]))
    for said in (
        f"nonfinite_gradient at step {finding.first_step}",
        "digits/hidden_1/kernel",
        "epsilon",
        str(path),
    ):
        assert said in demo.output.replace("\n", "")


def test_four_commands_look_further(demo: Demo) -> None:
    """The last lines: in this order, one each, and a shell finds them."""
    run_dir = demo.run("distance-loss")
    *before, board, service, grafana, report = demo.output.splitlines()
    assert before[-1].startswith("Look further")
    for line, name, arguments in (
        (board, "TensorBoard", f"tensorboard --logdir {demo.logdir}"),
        (service, "Service", f"gradwatch serve --logdir {demo.logdir}"),
        (report, "Report", f"gradwatch report {run_dir}"),
    ):
        said, command = line.split(maxsplit=1)
        assert said == name
        assert command.endswith(arguments)
        assert shutil.which(command.split()[0])
    assert grafana.split(maxsplit=1) == ["Grafana", "make grafana"]


def test_a_report_is_written(demo: Demo) -> None:
    """It is named, and says what broke and in which line."""
    file = demo.run("distance-loss") / "report.html"
    assert f"\n  {file}\n" in demo.output
    # What is in back-ticks is code there.
    told = unescape(re.sub("</?code>", "`", file.read_text()))
    (finding,) = read_findings(demo.run("distance-loss"))
    for said in (finding.rule, finding.message, finding.advice, "digits.py:"):
        assert said in told


def test_a_missing_package_is_named_before_it_trains(tmp_path: Path) -> None:
    """Not after it, when the report is due."""
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from gradwatch.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "demo", "--logdir", "runs"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "`gradwatch demo` needs jinja2" in done.stderr
    assert "pip install 'gradwatch[tensorflow,demo]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_grafana_shows_it(demo: Demo, tmp_path: Path) -> None:
    """What its dashboards ask a real Prometheus: the run, the NaN, the rule."""
    logdir = tmp_path / "runs"
    shutil.copytree(demo.logdir, logdir)
    path = logdir / demo.run("distance-loss").name
    (finding,) = read_findings(path)
    file, state = path / "state.json", _state(path)
    now = time.time()
    state["end"] = now  # a run is exported for 15 minutes
    times = state["counters"]["finding_times"]  # and told of for an hour
    state["counters"]["finding_times"] = [[*of, now] for *of, _ in times]
    state["counters"]["last_nonfinite_time"] = now  # asked for 5 minutes
    file.write_text(json.dumps(state))
    with ExitStack() as stack:
        service = stack.enter_context(serving(logdir))
        watched = stack.enter_context(
            monitoring(tmp_path / "built", [service], time_scale=1 / 120)
        )
        watched.await_result(f'gradwatch_run_info{{run="{path.name}"}}')
        watched.alerts.wait("GradwatchNonfiniteGradient", path.name)
        told = {
            (one.board, one.where, one.ref): watched.ask(
                filled(one.expr, path.name, seconds=3600)
            )
            for one in ASKED
        }
    run, fleet = "gradwatch-run", "gradwatch-fleet"
    for board in (run, fleet):
        (found,) = told[board, "Findings", "A"]
        assert found["metric"]["rule"] == finding.rule
        assert found["metric"]["severity"] == finding.severity
        assert told[board, "NaN or Inf", "A"]  # the mark on the charts
    (step,) = told[run, "Last bad step", "A"]
    assert float(step["value"][1]) == finding.first_step
    assert len(told[run, "Variables whose gradient was NaN or Inf", "A"]) == 6
    (count,) = told[fleet, "With NaN or Inf", "A"]
    assert float(count["value"][1]) == 1


def test_every_step_was_recorded_once(demo: Demo) -> None:
    """The packed readings of both runs hold each step exactly once."""
    for name, steps in (("healthy", 580), ("distance-loss", None)):
        path = demo.run(name)
        rows = [s for _, b in read_blocks(path) for s in b.steps.tolist()]
        assert sorted(rows) == list(range(steps or _state(path)["steps"]))


def test_the_step_named_is_the_first_bad_one(tmp_path: Path) -> None:
    """A loop without gradwatch finds NaN at the same step; weights agree."""
    x, y = digits()
    model = digits_model(distance)
    watch = GradWatch(tmp_path)
    history = model.fit(
        x,
        y,
        batch_size=64,
        epochs=20,
        verbose=0,
        shuffle=False,
        callbacks=[watch],
    )
    (finding,) = watch.findings
    plain = digits_model(distance)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(64).repeat()
    plain.fit(batches.take(finding.first_step), verbose=0, shuffle=False)
    for ours, theirs in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    step = next(iter(batches.skip(finding.first_step)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(distance(step[1], plain(step[0], training=True)))
    gradients = tape.gradient(loss, plain.trainable_variables)
    assert np.isfinite(loss)
    assert all(np.isnan(g.numpy()).any() for g in gradients)
    assert np.isfinite(history.history["loss"]).all()


def test_the_line_to_blame_is_named(demo: Demo) -> None:
    """By the run itself, and the same in another process."""
    path = demo.run("distance-loss")
    (told,) = _state(path)["autopsies"]
    (finding,) = read_findings(path)
    assert told["headline"].startswith(
        "The gradient of Sqrt is not finite in distance (digits.py:"
    )
    assert told["headline"] in finding.message
    # A panel breaks lines where they are too long.
    said = "".join(c for c in demo.output if c.isalnum())
    assert "ThegradientofSqrtisnotfiniteindistancedigitspy" in said
    ((_, found),) = examine_all(path, distance_model)
    assert found.headline() == told["headline"]
    assert (found.operation, found.phase) == ("Sqrt", "backward")
