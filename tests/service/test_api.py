"""The API, over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch.records import Epoch, Finding
from gradwatch.runstate import RunState
from gradwatch.service.rows import DETAILS, FIELDS
from gradwatch.service.runs import Runs
from gradwatch.strict_json import dumps
from tests.service.test_app import ask

NewState = Callable[..., RunState]
Save = Callable[[Path, RunState], Path]
ServeRuns = Callable[..., str]
FINDING = Finding(
    "exploding_gradient", "warning", "dense/kernel", 3, 4, {}, (), "M.", "A."
)


def get(url: str, path: str) -> dict[str, Any]:
    """Returns the JSON of an answer."""
    answer = ask(url, path)
    assert answer.headers["Content-Type"] == "application/json"
    return {"status": answer.status, **json.loads(answer.body)}


@pytest.fixture
def url(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> str:
    """A service with a healthy run, a bad and a lost one, a broken file."""
    save(tmp_path, new_state("healthy"))
    bad = new_state("bad", loss=np.nan, phase="failed", age=60)
    bad.fold(FINDING)
    bad.fold(Epoch(0, 10, time.time() - 60, {}, {"loss": 0.75}))
    save(tmp_path / "nested", bad)
    save(tmp_path, new_state("lost", age=100))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    return serve_runs(Runs([tmp_path]))


def test_runs_are_listed(url: str) -> None:
    """Each run has all fields; state and health are told apart."""
    told = get(url, "/api/runs")
    assert told["status"] == 200
    assert abs(told["time"] - time.time()) < 30
    assert told["errors"]["json"] >= 1
    runs = {run["run"]: run for run in told["runs"]}
    assert {name: run["state"] for name, run in runs.items()} == {
        "healthy": "running",
        "bad": "failed",
        "lost": "running",
    }
    assert [runs[n]["health"] for n in ("healthy", "bad", "lost")] == [
        "ok",
        "ok",
        "lost",
    ]
    for run in runs.values():
        assert list(run) == list(FIELDS)
    bad, healthy = runs["bad"], runs["healthy"]
    assert (bad["loss"], bad["nonfinite_steps"]) == ("NaN", 1)
    assert bad["last_nonfinite_step"] == 9
    assert (bad["validation_loss"], healthy["validation_loss"]) == (0.75, None)
    assert bad["findings"] == {"info": 0, "warning": 1, "critical": 0}
    assert bad["place"] == "nested/bad"
    assert (healthy["steps"], healthy["planned_steps"]) == (10, 100)
    assert healthy["steps_per_second"] == pytest.approx(1.0)
    assert 400 < healthy["eta_seconds"] < 600  # 60 s for the first ten
    assert bad["eta_seconds"] is None
    assert runs["lost"]["beat_age_seconds"] == pytest.approx(100, abs=20)


def test_a_run_is_told_in_full(url: str) -> None:
    """History, findings and counters are as in its state.json."""
    told = get(url, "/api/runs/bad")
    assert list(told) == ["status", "time", *FIELDS, *DETAILS]
    assert told["last_findings"][0]["rule"] == "exploding_gradient"
    assert told["history"]["steps"] == list(range(10))
    series = {(s, subject): v for s, subject, v in told["history"]["series"]}
    assert series["loss", ""] == [0.5] * 9 + ["NaN"]
    assert told["counters"]["nonfinite"][0] == ["loss", "nan", 1]


@pytest.mark.parametrize(
    "run", ["nobody", "..", "%2e%2e%2fhealthy", "healthy/state.json", "%00"]
)
def test_other_names_are_no_runs(url: str, run: str) -> None:
    """Only ids of runs lead somewhere; no path does."""
    answer = ask(url, f"/api/runs/{run}")
    assert answer.status == 404
    assert b"bad" not in answer.body


def test_ranks_are_one_run(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> None:
    """The chief speaks for the run; the worst health of its ranks is told."""
    for rank, age in (("0", 0), ("1", 100), ("2", 0)):
        state = new_state("job", age=age)
        path = save(tmp_path / f"rank-{rank}", state)
        path.write_text(dumps({**state.snapshot(), "rank": rank}))
    url = serve_runs(Runs([tmp_path]))
    (run,) = get(url, "/api/runs")["runs"]
    assert (run["ranks"], run["health"]) == (3, "lost")
    assert run["beat_age_seconds"] < 50
    text = ask(url).body.decode()
    for rank in "012":
        assert f'gradwatch_steps_total{{rank="{rank}",run="job"}} 10.0' in text
    assert text.count("gradwatch_loss{") == 1
    assert 'gradwatch_run_health{health="lost",run="job"} 1.0' in text
    assert "gradwatch_runs 1.0" in text
