"""How a report looks, and what the command and the assertion make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from gradwatch import (
    AuditFinding,
    AuditReport,
    GradWatchError,
    assert_trainable,
    audit,
)
from gradwatch.audit.domain import parse_domain
from gradwatch.cli import app

CODE = """
import keras
import tensorflow as tf

def fine(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred), -1)

def steps(y_true, y_pred):
    return tf.reduce_mean(tf.abs(y_true - tf.round(y_pred)), -1)

class Squares(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), -1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of losses."""
    (tmp_path / "audited_losses.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps(y_true: Any, y_pred: Any) -> Any:
    """A loss without a gradient."""
    return tf.reduce_mean(tf.abs(y_true - tf.round(y_pred)), -1)


def test_a_report_in_all_its_forms() -> None:
    """Text, Markdown, HTML and plain data name finding, line and advice."""
    report = audit(steps)
    assert (report.worst, report.fails("critical")) == ("critical", True)
    forms = (str(report), report.to_markdown(), report._repr_html_())
    for form in (*forms, json.dumps(report.to_dict(), default=str)):
        plain = form.replace("\\", "")
        assert "missing_gradient" in plain
        assert "test_report.py" in plain
        assert "straight-through" in plain
    assert max(map(len, str(report).splitlines())) <= 88


def test_severities() -> None:
    """A report fails by its worst finding."""
    one = AuditFinding("check", "warning", "", "It is so.")
    report = AuditReport("loss", "loss", {}, (one,), (), 0.1)
    fails = [report.fails(s) for s in ("info", "warning", "critical")]
    assert fails == [True, True, False]
    assert not AuditReport("loss", "loss", {}, (), (), 0.1).fails("info")


def test_nothing_in_markdown_is_read_as_such() -> None:
    """Names and messages come from anywhere."""
    one = AuditFinding("check", "info", "", "<b>*x*</b> | y", {"x": [1.0]})
    report = AuditReport("f", "loss", {}, (one,), (), 0.1)
    assert "\\<b\\>\\*x\\*\\</b\\> \\| y" in report.to_markdown()
    assert "<b>*x*" not in report._repr_html_()


def test_the_assertion_tells_the_report() -> None:
    """Silent about what is fine."""
    assert_trainable(lambda y_true, y_pred: tf.square(y_true - y_pred))
    with pytest.raises(AssertionError, match="`Round` in steps"):
        assert_trainable(steps)


@pytest.mark.usefixtures("folder")
def test_the_command() -> None:
    """Status 3 where something is found; JSON; classes are made."""
    run = CliRunner().invoke
    fine = run(app, ["audit", "audited_losses:fine"])
    assert (fine.exit_code, fine.stderr) == (0, "")
    assert "Nothing found" in fine.stdout
    found = run(app, ["audit", "audited_losses:steps", "--json"])
    assert found.exit_code == 3
    (finding,) = json.loads(found.stdout)["findings"]
    assert finding["source"]["line"] == 9
    made = run(app, ["audit", "audited_losses:Squares", "--second-order"])
    assert made.exit_code == 0
    assert "second derivatives agree" in made.stdout
    assert "second" not in fine.stdout


@pytest.mark.usefixtures("folder")
def test_the_command_says_what_it_expects() -> None:
    """Of names, domains, and what is there."""
    run = CliRunner().invoke
    base = ["audit", "audited_losses:fine", "--input"]
    stated = run(app, [*base, "y_pred=8x2/0..1", "--seed", "3"])
    assert "y_pred: 8x2, numbers from 0 to 1" in stated.stdout
    for option, said in (
        ("8x2", "Expected NAME=SHAPE"),
        ("y_pred=eight", "an array, a shape and a range"),
        ("x=8x2", "Name each argument as the function does"),
    ):
        done = run(app, [*base, option])
        assert done.exit_code == 1
        assert said in done.stderr
    assert run(app, ["audit", "audited_losses:gone"]).exit_code == 1


def test_what_cannot_be_audited_is_told() -> None:
    """Classes, numbers, functions of which nothing is known."""
    with pytest.raises(GradWatchError, match="Make an object of a class"):
        audit(tf.keras.losses.Loss)
    with pytest.raises(GradWatchError, match="nothing is known: all"):
        audit(lambda *several: several[0])
    with pytest.raises(GradWatchError, match="nothing is known: a, c"):
        audit(lambda a, b, c: a + b + c, inputs={"b": (3,)})
    report = audit(
        lambda a, b, c: a + b * c,
        inputs={"a": (3,), "b": ((3,), (0, 1)), "c": "3/-1..1"},
    )
    assert (report.kind, report.worst) == ("function", None)
    assert len(report.domain) == 3


def test_a_gradient_of_another_shape_is_refused() -> None:
    """TensorFlow itself lets it pass."""

    @tf.custom_gradient
    def add(x: Any, bias: Any) -> Any:
        return x + bias, lambda u: (u, tf.reduce_sum(u))

    with pytest.raises(GradWatchError, match=r"`bias` has the shape \(\)"):
        audit(lambda x, bias: add(x, bias), inputs={"x": (4, 3), "bias": (3,)})


@pytest.mark.parametrize("given", ["4x", "4/1..0", ((4,), (1, 0)), "x", {}])
def test_domains_that_are_none(given: Any) -> None:
    """The argument is named."""
    with pytest.raises(GradWatchError, match="y_pred"):
        parse_domain("y_pred", given)


def test_nothing_is_left_in_tensorflow() -> None:
    """What fails inside of `tf.map_fn` leaves a variable scope behind."""
    fails = tf.custom_gradient(lambda x: (x + 1.0, tf.reduce_sum))
    with pytest.raises(GradWatchError, match="has the shape"):
        audit(lambda x: fails(x), inputs=(4, 3))
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        assert tf.Variable(1.0).numpy() == 1.0
