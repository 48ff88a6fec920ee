"""Losses of real, noisy runs, judged by PromQL as by the rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradwatch.monitoring.files import files, write
from gradwatch.monitoring.thresholds import Settings
from tests.monitoring.recorded import FAULTY, FILE, SAMPLES

RUNS: dict[str, Any] = json.loads(FILE.read_text())
_FIRED = (
    "count by (alertname, run) (last_over_time(ALERTS{alertname=~"
    '"GradwatchStalledLoss|GradwatchDivergingLoss",alertstate="firing"}[3h]))'
)


@pytest.fixture
def fired(tmp_path: Path, tool: Callable[..., Any]) -> Callable[..., bool]:
    """Whether just these alerts fired, ever, if each run took two hours."""

    def ask(expected: dict[str, str], **thresholds: float) -> bool:
        write(tmp_path, files(Settings(thresholds)))
        inputs = [
            {"series": _labelled(series, run), "values": _written(values)}
            for run, told in RUNS.items()
            for series, values in told["series"].items()
        ]
        samples = [
            {"labels": f'{{alertname="{alert}",run="{run}"}}', "value": 1}
            for run, alert in expected.items()
        ]
        query = {
            "expr": _FIRED,
            "eval_time": f"{SAMPLES}m",
            "exp_samples": samples,
        }
        test = {
            "interval": "1m",
            "input_series": inputs,
            "promql_expr_test": [query],
        }
        content = {
            "rule_files": ["recording.yml", "alerts.yml"],
            "evaluation_interval": "1m",
            "group_eval_order": ["gradwatch-records", "gradwatch-findings"],
            "tests": [test],
        }
        file = tmp_path / "prometheus" / "losses.json"  # JSON is YAML
        file.write_text(json.dumps(content))
        done = tool("promtool", "test", "rules", file)
        assert done.returncode == 0 or "got:" in done.stdout + done.stderr
        return bool(done.returncode == 0)

    return ask


def _labelled(series: str, run: str) -> str:
    told = f'instance="a",job="gradwatch",run="{run}"'
    return series.replace('run="run"', told)


def _written(values: list[Any]) -> str:
    return " ".join("_" if v is None else str(v) for v in ["_", *values])


def test_the_recordings_are_noisy() -> None:
    """Single losses differ by 10 % of their mean and more, for the most."""
    noisy = 0
    for told in RUNS.values():
        (noise,) = (v for k, v in told["series"].items() if "noise" in k)
        (mean,) = (v for k, v in told["series"].items() if "_mean" in k)
        noisy += noise[SAMPLES // 2] > 0.1 * abs(mean[SAMPLES // 2])
        assert told["steps"] > 3000
    assert noisy > len(RUNS) / 2


def test_promql_and_rules_say_the_same(fired: Callable[..., bool]) -> None:
    """Both name the runs that stall, and nothing of the healthy ones."""
    said = {
        run: [
            rule for rule, severity, _ in told["findings"] if severity != "info"
        ]
        for run, told in RUNS.items()
    }
    assert said == {run: [FAULTY[run]] if run in FAULTY else [] for run in RUNS}
    assert fired(dict.fromkeys(FAULTY, "GradwatchStalledLoss"))


def test_the_thresholds_are_what_keeps_it_silent(
    fired: Callable[..., bool],
) -> None:
    """If a loss had to gain all, a run with wrong labels would stall, too."""
    expected = dict.fromkeys(FAULTY, "GradwatchStalledLoss")
    assert not fired(expected, stalled_loss_gain=0.99)
