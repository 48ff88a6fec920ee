from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from gradwatch.exposition import DROP_REASONS
from gradwatch.families import families
from gradwatch.metrics import RunCollector, serve_metrics
from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Epoch,
    Finding,
    Run,
    Schema,
    Variable,
)
from gradwatch.runstate import RunState, Snapshot
from gradwatch.signals import SIGNALS, Signal, Slot
from gradwatch.strict_json import dumps

GOLDEN = Path(__file__).parent / "data" / "metrics.txt"
FINDING = Finding(
    "non_finite_step", "critical", "dense/kernel", 2, 2, {}, (), "", ""
)


XRAY = {
    Slot("variable_zero_gradient_ratio", "dense/kernel"): 0.25,
    Slot("variable_weight_norm", "dense/kernel"): 1.5,
    Slot("layer_silent_ratio", "dense"): 0.125,
    Slot("layer_max_abs", "dense"): math.inf,
    Slot("component_gradient_norm", "data"): 2.0,
    Slot("component_gradient_norm", "prior"): 4.0,
    Slot("component_gradient_cosine", "data|prior"): -0.5,
}


def small_run(
    paths: Iterable[str] = ("dense/kernel", "dense/bias"),
    run_id: str = "run-1",
    *,
    xray: Mapping[Slot, float] | None = None,
) -> RunState:
    """Returns a run of four steps, of which step 2 was not finite.

    Step 1 was an X-ray, which measured `xray`.
    """
    xray = xray or {}
    state = RunState(Run(run_id, "small", 1000.0, "host", {}, {}))
    variables = tuple(Variable(p, (2, 3), "float32", True, 0.1) for p in paths)
    norms = [Slot("variable_gradient_norm", v.path) for v in variables]
    flags = ("nonfinite", "nonfinite_batch", "update_dropped")
    slots = (*map(Slot, ("loss", "gradient_norm", *flags)), *norms, *xray)
    optimizer = {"class_name": "Adam"}
    anatomy = Anatomy("model", (), variables, None, (), optimizer, 40, {})
    state.begin(anatomy, Schema(slots))
    values = np.ones((4, len(slots)), np.float32)
    values[:, 0] = [1.0, 0.5, np.nan, 0.75]
    values[:, 1] = [0.25, 2.0, np.inf, 3.0]
    values[:, 2:5] = [[0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    values[2, 5:6] = np.inf
    values[:, len(slots) - len(xray) :] = np.nan
    values[1, len(slots) - len(xray) :] = list(xray.values())
    steps = np.arange(4)
    state.fold(Block(steps, 1000.0 + steps / 4, values, steps == 1))
    state.fold(FINDING)
    metrics = {"loss": 0.8, "accuracy": 0.5}
    validation = {"loss": math.nan, "accuracy": 0.25}
    state.fold(Epoch(0, 4, 1001.0, metrics, validation))
    dropped, errors = {"tensorboard": 3}, {"log": 1}
    state.fold(
        Beat(1002.0, "running", 4, 1007.0, dropped=dropped, errors=errors)
    )
    return state


def page(*snapshots: Snapshot, **options: Any) -> str:
    """Returns the text that a registry with these runs exposes."""
    registry = CollectorRegistry()
    registry.register(RunCollector(lambda: snapshots, **options))
    return generate_latest(registry).decode()


def series(text: str) -> dict[str, float]:
    """Returns series -> value; fails if one is there twice."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert len(found) == len(lines)
    return {name: float(value) for name, value in found.items()}


def test_golden_page() -> None:
    """The page of a small run is, word for word, the one that was agreed."""
    text = page(
        small_run(xray=XRAY).snapshot(),
        source_errors=lambda: {"json": 2},
        health=lambda _: "ok",
        room=lambda: {"runs": 4096},
    )
    changing = ("gradwatch_build_info{", "gradwatch_collect_duration_seconds ")
    lines = text.splitlines(keepends=True)
    fixed = "".join(li for li in lines if not li.startswith(changing))
    assert fixed == GOLDEN.read_text()
    assert len(lines) == len(fixed.splitlines()) + 2


def test_json_gives_the_same_page() -> None:
    """A snapshot read back from JSON is worth the one in memory."""
    snapshot = small_run().snapshot()
    here, there = (
        series(page(s)) for s in (snapshot, json.loads(dumps(snapshot)))
    )
    duration = "gradwatch_collect_duration_seconds"
    assert here.pop(duration) > 0
    assert there.pop(duration) > 0
    assert repr(here) == repr(there)


def test_promtool_accepts_the_page() -> None:
    """`promtool check metrics` has nothing to say."""
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.fail("`promtool` is not installed: apt install prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=page(small_run(xray=XRAY).snapshot()),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_gauges_tell_nan_and_counters_stay_finite() -> None:
    """NaN and infinite values show in gauges; counters and sums are numbers."""
    state = small_run()
    values = np.full((1, 7), np.nan, np.float32)
    values[0, 1] = -np.inf
    last = Block(np.array([4]), np.array([1002.0]), values, np.array([False]))
    state.fold(last)
    text = page(state.snapshot())
    found = series(text)
    assert 'gradwatch_loss{run="run-1",split="train"} NaN\n' in text
    assert 'gradwatch_gradient_norm{run="run-1"} -Inf\n' in text
    assert math.isfinite(found['gradwatch_step_gradient_norm_sum{run="run-1"}'])
    suffixes = ("_total", "_count", "_sum", "_bucket")
    for name, value in found.items():
        if name.partition("{")[0].endswith(suffixes):
            assert math.isfinite(value), name


def dropped(found: dict[str, float], run: str = "run-1") -> dict[str, float]:
    """Returns reason -> series that are left out."""
    name = 'gradwatch_series_dropped_total{{reason="{}",run="{}"}}'
    return {r: found[name.format(r, run)] for r in DROP_REASONS}


def test_variables_beyond_the_limit_are_counted() -> None:
    """The first 100 variables have series; the counter of the rest is one."""
    paths = [f"layer_{i}/kernel" for i in range(120)]
    snapshot = small_run(paths).snapshot()
    snapshot["counters"]["variable_nonfinite"] = [
        [paths[0], 1],
        [paths[110], 2],
        [paths[119], 3],
    ]
    found = series(page(snapshot))
    norms = [n for n in found if n.startswith("gradwatch_variable_gradient")]
    assert len(norms) == 100
    assert found['gradwatch_variables{run="run-1"}'] == 120
    assert found['gradwatch_variables_exported{run="run-1"}'] == 100
    assert dropped(found)["subjects"] == 20
    events = 'gradwatch_variable_nonfinite_events_total{{run="run-1",{}}}'
    assert found[events.format('variable="layer_0/kernel"')] == 1
    assert found[events.format('variable="__other__"')] == 5


def test_pairs_of_components_are_bounded() -> None:
    """Components come first; the pairs of many do not fill the page."""
    names = [f"term_{i}" for i in range(10)]
    pairs = ["|".join(pair) for pair in combinations(names, 2)]
    xray = {Slot("component_gradient_norm", name): 1.0 for name in names}
    xray |= {Slot("component_gradient_cosine", pair): 0.5 for pair in pairs}
    found = series(page(small_run(xray=xray).snapshot()))
    kinds = {"norm": 10, "cosine": 22}
    for kind, count in kinds.items():
        family = f"gradwatch_component_gradient_{kind}{{"
        assert len([n for n in found if n.startswith(family)]) == count
    assert dropped(found)["subjects"] == len(pairs) - 22


def test_layers_beyond_the_limit_are_counted() -> None:
    """The first 100 layers have series of every signal, the others none."""
    xray = {
        Slot(signal, f"layer_{i}"): 1.0
        for signal in ("layer_mean", "layer_std")
        for i in range(120)
    }
    found = series(page(small_run(xray=xray).snapshot()))
    layers = [n for n in found if n.startswith("gradwatch_layer_")]
    assert len(layers) == 200
    assert 'gradwatch_layer_std{layer="layer_99",run="run-1"}' in found
    assert dropped(found)["subjects"] == 40


def test_a_run_that_is_there_twice_is_exported_once() -> None:
    """A second snapshot of the same run adds no series, only to the count."""
    state = small_run()
    once = series(page(state.snapshot()))
    twice = series(page(state.snapshot(), state.snapshot()))
    assert once.keys() == twice.keys()
    # What has no run, and what tells of drops, is there once anyway.
    alone = [n for n in once if 'run="' in n and "series_dropped" not in n]
    assert dropped(twice)["collision"] == len(alone)


def test_the_page_has_a_limit() -> None:
    """Exactly `max_series` are exported, and what matters most stays."""
    paths = [f"layer_{i}/kernel" for i in range(100)]
    runs = [small_run(paths, f"run-{i}").snapshot() for i in range(4)]
    complete = series(page(*runs))
    found = series(page(*runs, max_series=900))
    assert len(found) == 900
    lost = sum(sum(dropped(found, f"run-{i}").values()) for i in range(4))
    assert lost == len(complete) - 900
    for i in range(4):
        assert f'gradwatch_loss{{run="run-{i}",split="train"}}' in found
    assert 'gradwatch_variables_exported{run="run-0"}' in found
    assert "gradwatch_collect_duration_seconds" in found


def test_dropped_series_never_fall() -> None:
    """A counter of what is left out keeps the most that was left out."""
    state = small_run(f"layer_{i}/kernel" for i in range(120))
    snapshots = [state.snapshot()]
    registry = CollectorRegistry()
    registry.register(RunCollector(lambda: snapshots))
    before = series(generate_latest(registry).decode())
    snapshots[0]["values"] = []
    after = series(generate_latest(registry).decode())
    assert dropped(before)["subjects"] == dropped(after)["subjects"] == 20


def test_a_new_signal_appears_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal needs its row in SIGNALS, nothing else, to be exported."""
    snapshot = small_run().snapshot()
    snapshot["values"] += [
        ["wait", "", 2.5],
        ["activation_mean", "dense", 0.5],
        ["never_heard", "", 1.0],
    ]
    assert dropped(series(page(snapshot)))["unknown"] == 3
    for signal in (
        Signal("wait", "seconds", "run", "Time to wait."),
        Signal("activation_mean", "1", "layer", "Mean of activations."),
    ):
        monkeypatch.setitem(SIGNALS, signal.name, signal)
    found = series(page(snapshot))
    assert found['gradwatch_wait_seconds{run="run-1"}'] == 2.5
    mean = 'gradwatch_activation_mean{layer="dense",run="run-1"}'
    assert found[mean] == 0.5
    assert dropped(found)["unknown"] == 1
    assert "# HELP gradwatch_wait_seconds Time to wait.\n" in page(snapshot)


def test_nothing_is_told_before_it_is_measured() -> None:
    """A run that has just begun has counters at 0 and no invented values."""
    state = RunState(Run("new", "new", 1000.0, "host", {}, {}))
    state.begin(Anatomy(), Schema((Slot("loss"), Slot("gradient_norm"))))
    found = series(page(state.snapshot()))
    assert not any(n.startswith("gradwatch_loss") for n in found)
    assert not any(math.isnan(value) for value in found.values())
    event = 'gradwatch_nonfinite_events_total{kind="nan",run="new",source="%s"}'
    for source in ("loss", "gradient", "weight", "batch"):
        assert found[event % source] == 0
    assert found['gradwatch_run_state{run="new",state="starting"}'] == 1


def test_describe_names_what_collect_yields() -> None:
    """`describe` knows every family, so one can be asked for by name."""

    def names(metrics: Iterable[Metric]) -> set[str]:
        return {m.name for m in metrics}

    snapshot = small_run().snapshot()
    collector = RunCollector(
        lambda: [snapshot], lambda: {"json": 0}, health=lambda _: "ok"
    )
    assert names(collector.collect()) <= names(collector.describe())
    assert len(names(collector.describe())) == len(families())
    registry = CollectorRegistry()
    registry.register(collector)
    loss = registry.restricted_registry(["gradwatch_loss"])
    assert len(generate_latest(loss).splitlines()) == 4


def test_endpoint_serves_on_loopback_and_closes() -> None:
    """The in-process endpoint shows the present and frees its port."""
    state = small_run()
    before = threading.active_count()
    endpoint = serve_metrics(RunCollector(lambda: [state.snapshot()]), 0)
    assert endpoint.url.startswith("http://127.0.0.1:")
    with urlopen(endpoint.url) as response:
        assert b"gradwatch_steps_total" in response.read()
    endpoint.close()
    endpoint.close()
    assert threading.active_count() == before
    port = int(endpoint.url.split(":")[2].split("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_taken_port_raises() -> None:
    """A port on which somebody listens is an OSError for the caller."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            serve_metrics(RunCollector(lambda: []), port)


def test_labels_of_the_user_are_told() -> None:
    """The first sixteen, whatever is in them."""
    named = {"te\nam": 'vision "x"', **{f"k{i}": str(i) for i in range(20)}}
    snapshot = small_run().snapshot()
    snapshot["run"]["labels"] = named
    found = series(page(snapshot))
    told = [n for n in found if n.startswith("gradwatch_run_label_info{")]
    assert len(told) == 16
    first = r'{key="team",run="run-1",value="vision \"x\""}'
    assert found[f"gradwatch_run_label_info{first}"] == 1


def test_findings_are_counted_by_rule_and_severity() -> None:
    """The time of the last finding is kept by subject."""
    state = small_run()
    state.fold(Beat(1010.0, "running", 4, 1020.0))
    state.fold(replace(FINDING, subject="dense/bias"))
    found = series(page(state.snapshot()))
    labels = 'rule="non_finite_step",run="run-1",severity="critical"'
    assert found[f"gradwatch_findings_total{{{labels}}}"] == 2
    last = "gradwatch_finding_last_timestamp_seconds"
    assert found[f'{last}{{{labels},subject="dense/bias"}}'] == 1010.0


def test_steps_at_which_clipping_bound_are_counted() -> None:
    """Below 1 is clipped, NaN is not; a step with two optimizers is one."""
    state = RunState(Run("run-1", "clips", 1000.0, "host", {}, {}))
    signals = ("clip_factor", "optimizer_clip_factor", "optimizer_clip_factor")
    names = ("", "first", "second")
    state.begin(Anatomy(), Schema(tuple(map(Slot, signals, names))))
    factors = [[1, 1, 1], [0.5, 1, 1], [np.nan] * 3, [1, 0.5, 0.25]]
    values = np.array(factors, np.float32)
    steps = np.arange(4)
    times = steps.astype(np.float64)
    state.fold(Block(steps, times, values, steps < 0))
    found = series(page(state.snapshot()))
    assert found['gradwatch_clipped_steps_total{run="run-1"}'] == 2
    assert found['gradwatch_clip_factor_ratio{run="run-1"}'] == 1
    second = 'optimizer="second",run="run-1"'
    assert found[f"gradwatch_optimizer_clip_factor_ratio{{{second}}}"] == 0.25
