"""The demo, as a user sees it."""

from __future__ import annotations

import json
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
        f"tensorboard --logdir {demo.logdir}",
        f"gradwatch serve --logdir {demo.logdir}",
        f"cat {path}/blackbox/step-*/autopsy.md",
        str(path),
    ):
        assert said in demo.output.replace("\n", "")


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
