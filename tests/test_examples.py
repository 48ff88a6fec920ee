"""The examples run, and what each is about can be seen."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from gradwatch.cli import app
from gradwatch.records import Finding
from gradwatch.sinks.findings import read_findings
from gradwatch.sinks.readings import read_blocks
from tests.monitoring.boards import ASKED, filled
from tests.monitoring.stack import monitoring, serving
from tests.service.test_app import ask

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("0*.py"))


class Ran(NamedTuple):
    """What is left of an example.

    Attributes:
        names: what its module defines.
        printed: its standard output.
        logdir: the folder `runs` that it wrote into.
    """

    names: Mapping[str, Any]
    printed: str
    logdir: Path

    def run(self, name: str) -> Path:
        """Returns the directory of the run of this name."""
        (path,) = self.logdir.rglob(f"{name}-20*")
        return path

    def says(self, *texts: str) -> None:
        """Asserts that a reader sees these texts."""
        for text in texts:
            assert text in self.printed


@pytest.fixture
def example(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[[], Ran]]:
    """Runs the example that the test is called after, as its reader does."""
    path = FOLDER / f"{request.node.name.removeprefix('test_')}.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)  # as Python does for a script

    def run() -> Ran:
        names = runpy.run_path(str(path), run_name="__main__")
        return Ran(names, capsys.readouterr().out, tmp_path / "runs")

    policy = keras.config.dtype_policy()
    yield run
    keras.config.set_dtype_policy(policy)
    sys.modules.pop("own_rules", None)


def values(watch: Any) -> dict[tuple[str, str], float]:
    """Returns signal and subject -> the newest value of a run."""
    return {(signal, of): value for signal, of, value in watch.state["values"]}


def readings(run_dir: Path, signal: str) -> np.ndarray[Any, Any]:
    """Returns all recorded values of a run's signal, step by step."""
    columns = [
        block.values[:, schema.column(signal)]
        for schema, block in read_blocks(run_dir)
    ]
    return np.concatenate([column.reshape(-1) for column in columns])


def test_every_example_is_looked_at() -> None:
    """By a test of its name; the README names it, and it is short."""
    tested = {name for name in globals() if name.startswith("test_0")}
    assert tested == {f"test_{stem}" for stem in EXAMPLES}
    for stem in EXAMPLES:
        assert f"(examples/{stem}.py)" in (ROOT / "README.md").read_text()
        lines = (FOLDER / f"{stem}.py").read_text().splitlines()
        assert len(lines) <= 100
        assert f"`python examples/{stem}.py`" in " ".join(lines[:20])


def test_01_first_run(example: Callable[[], Ran]) -> None:
    """A healthy run ends without a finding."""
    ran = example()
    ran.says("finished after 150 of 150 steps", "no findings")
    assert ran.names["watch"].findings == []


def test_02_nan_hunt(example: Callable[[], Ran]) -> None:
    """One of the twins is stopped, and its weights are kept."""
    ran = example()
    ran.says(
        "failed (nonfinite)",
        "critical: nonfinite_loss at step",
        "finished after 540 of 540 steps",
    )
    assert ran.printed.count("weights are finite: True") == 2
    losses = readings(ran.run("textbook"), "loss")
    (finding,) = ran.names["broken"].findings
    assert np.isfinite(losses).tolist() == [True] * finding.first_step + [False]


def test_03_custom_loss_components(example: Callable[[], Ran]) -> None:
    """Terms add up to the loss; the one that dominates is named, once."""
    ran = example()
    heavy, light = ran.names["heavy"], ran.names["light"]
    for watch in (heavy, light):
        newest = values(watch)
        terms = {
            part: value
            for (signal, part), value in newest.items()
            if signal == "loss_component" and "/" in part
        }
        names = {"fit", "sign", "unexplained"}
        assert set(terms) == {f"progression/{name}" for name in names}
        assert sum(terms.values()) == pytest.approx(newest["loss", ""], 1e-5)
        assert abs(terms["progression/unexplained"]) < 1e-4 * newest["loss", ""]
        ran.says(*terms)
    newest = values(heavy)
    fit, sign = (
        newest["component_gradient_norm", f"progression/{name}"]
        for name in ("fit", "sign")
    )
    assert sign > 100 * fit
    (finding,) = heavy.findings
    assert finding.rule == "dominant_component"
    assert finding.subject == "progression/sign"
    assert finding.evidence["dominated"] == "progression/fit"
    ran.says(f"{finding.rule} at step", finding.message)
    assert light.findings == []


def test_04_own_rule(
    example: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fires where the schedule rises, and again on the recorded run."""
    ran = example()
    watch, schedule = ran.names["watch"], ran.names["schedule"]
    rates = [float(schedule(step)) for step in range(watch.state["steps"])]
    (rise,) = (s for s in range(1, len(rates)) if rates[s] > rates[s - 1])
    (finding,) = watch.findings
    assert (finding.rule, finding.first_step) == ("rate_jump", rise)
    assert finding.evidence["learning_rate"] == pytest.approx(rates[rise])
    ran.says(f"warning: rate_jump at step {rise}", finding.message)
    told = f"judge {Path('runs', watch.path.name)} --rules "
    _, found, rules = ran.printed.partition(told)
    assert found
    monkeypatch.chdir(ROOT)  # where the README's commands are for
    command = ["judge", str(ran.run("digits")), "--json", "--rules"]
    done = CliRunner().invoke(app, [*command, rules.strip()])
    assert done.exit_code == 3, done.output
    (line,) = done.stdout.splitlines()
    assert Finding.from_json(json.loads(line)) == finding


def test_05_many_runs(
    example: Callable[[], Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status, service, Prometheus and alerts see all runs, one as failed."""
    with ExitStack() as stack:
        service = stack.enter_context(serving(tmp_path / "runs" / "sweep"))
        watched = stack.enter_context(
            monitoring(tmp_path / "built", [service], time_scale=1 / 120)
        )
        ran = example()
        names = {f"rate-{rate}" for rate in ran.names["RATES"]}
        ids = {name: ran.run(name).name for name in names}
        failed = ids["rate-1.0"]
        runs = {run["run"]: run for run in ran.names["runs"]}
        assert {i: run["state"] for i, run in runs.items()} == {
            i: "failed" if i == failed else "finished" for i in ids.values()
        }
        assert runs[failed]["labels"] == {"sweep": "rate", "rate": "1.0"}
        ran.says("The best rate is 0.01", f"Failed: {failed} (nonfinite)")
        page = ask(f"http://{service}", "/").body.decode()
        assert page.index(f"runs/{failed}") == page.index("runs/rate")
        assert all(f"runs/{i}" in page for i in ids.values())
        labelled = 'gradwatch_run_label_info{key="rate",value="1.0"}'
        watched.await_result(labelled)
        (found,) = watched.query(labelled)
        assert found["run"] == failed
        watched.alerts.wait("GradwatchNonfiniteLoss", failed)
        for one in ASKED:
            if (one.board, one.where) == ("gradwatch-fleet", "Runs"):
                seen = {m.get("run") for m in watched.query(filled(one.expr))}
                assert seen <= {*ids.values()}
                if one.ref in "AB":  # who it is, and its state
                    assert seen == {*ids.values()}


def test_06_mixed_precision(example: Callable[[], Ran]) -> None:
    """The scale falls where updates are dropped; norms are unscaled."""
    ran = example()
    half = ran.names["half"]
    path, plain = ran.run("mixed_float16"), ran.run("float32")
    scales, norms = (readings(path, s) for s in ("loss_scale", "gradient_norm"))
    dropped = readings(path, "update_dropped") > 0
    # Each drop halves the scale; ten updates in a row double it.
    drops = np.flatnonzero(dropped[:-1])
    assert np.array_equal(scales[drops + 1], scales[drops] / 2)
    assert dropped[0]
    assert dropped[10:].any()
    assert (np.isfinite(norms) != dropped).all()
    count = int(dropped.sum())
    skipped = half.state["counters"]["skipped_steps"]
    assert skipped == {"loss_scale": count, "nonfinite": 0, "held": 0}
    ran.says(f"dropped by loss scaling: {count}\n", "because they were bad: 0")
    assert half.findings == []
    # Both runs have seen the same, until the second was first dropped again.
    theirs = readings(plain, "gradient_norm")
    np.testing.assert_allclose(norms[~dropped][:10], theirs[:10], rtol=0.01)


def test_07_gan_custom_train_step(example: Callable[[], Ran]) -> None:
    """Each optimizer has its loss, norm and rate; gradients reach both."""
    ran = example()
    watch = ran.names["watch"]
    newest, findings = values(watch), read_findings(watch.path)
    assert (watch.state["phase"], findings) == ("finished", [])
    parts = 0.0
    for of, rate in (("critic", 0.0005), ("generator", 0.001)):
        name = f"{of}_optimizer"
        parts += newest["loss_component", name]
        assert newest["optimizer_learning_rate", name] == pytest.approx(rate)
        norms = [
            norm
            for (signal, path), norm in newest.items()
            if signal == "variable_gradient_norm" and path.startswith(f"{of}/")
        ]
        assert len(norms) == 4
        assert all(norm > 0 for norm in norms)
        whole = newest["optimizer_gradient_norm", name]
        assert whole == pytest.approx(float(np.linalg.norm(norms)), 1e-4)
        ran.says(name, f"{of}/hidden/kernel")
    assert parts == pytest.approx(newest["loss", ""], 1e-5)
    assert ran.names["after"] < ran.names["before"] / 2


def test_08_audit_a_loss(example: Callable[[], Ran]) -> None:
    """Both faults have a name, and nothing is left after they are mended."""
    ran = example()
    ran.says(
        "hurried: not_at_minimum, batch_mixed; its predictions correlate by -0",
        "mended: nothing wrong; its predictions correlate by 0",
        "def hurried",
    )
    reports = {f.__name__: r for f, r in ran.names["reports"].items()}
    assert reports["hurried"].worst == "warning"
    assert not reports["mended"].fails("warning")


def test_a_loss_of_ones_own_has_a_test() -> None:
    """It passes, and fails for the loss of the example with faults."""
    names = runpy.run_path(str(FOLDER / "test_my_loss.py"))
    names["test_my_loss"]()
    names["test_my_loss"].__globals__["my_loss"] = lambda y_true, y_pred: (
        (y_true + y_pred) ** 2
    )
    with pytest.raises(AssertionError, match="not_at_minimum"):
        names["test_my_loss"]()
