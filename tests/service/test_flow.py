"""From a real `fit` through both endpoints into the real Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from gradwatch import GradWatch
from tests.models import classifier


def test_a_nan_reaches_prometheus_while_the_fit_runs(
    tmp_path: Path,
    serve_command: Callable[[Path], str],
    start_prometheus: Callable[..., Any],
) -> None:
    """A run is seen training, then stopped with its finding, on both sides."""
    nan = threading.Event()

    def batches() -> Iterator[tuple[Any, Any]]:
        random = np.random.default_rng(0)
        while True:
            time.sleep(0.01)
            x = random.normal(size=(32, 8)).astype(np.float32)
            if nan.is_set():
                x[3, 3] = np.nan
            yield x, random.integers(0, 3, 32)

    watch = GradWatch(tmp_path, name="job", metrics_port=0)
    trainer = threading.Thread(
        target=lambda: classifier().fit(
            batches(),
            steps_per_epoch=100_000,
            verbose=0,
            shuffle=False,
            callbacks=[watch],
        )
    )
    trainer.start()
    while watch.metrics_url is None:
        time.sleep(0.01)
    service = urlsplit(serve_command(tmp_path)).netloc
    targets = {
        "service": service,
        "trainer": urlsplit(watch.metrics_url).netloc,
    }
    prometheus = start_prometheus(targets)
    run = watch.run.id if watch.run else ""
    for job in targets:
        on = f'{{job="{job}",'
        prometheus.wait(f'gradwatch_run_state{on}state="running"}}', {run: "1"})
        prometheus.wait(
            f'gradwatch_steps_total{on}rank="0"}} > bool 9', {run: "1"}
        )
    nan.set()
    trainer.join(60)
    (finding,) = watch.findings
    steps = str(finding.first_step + 1)
    for job in targets:
        on = f'{{job="{job}",'
        prometheus.wait(f'gradwatch_run_state{on}state="failed"}}', {run: "1"})
        prometheus.wait(f'gradwatch_steps_total{on}rank="0"}}', {run: steps})
        found = f'gradwatch_findings_total{on}rule="{finding.rule}"}}'
        prometheus.wait(found, {run: "1"})
