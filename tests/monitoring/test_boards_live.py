"""Every query of every dashboard, asked of a real Prometheus."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

from tests.monitoring.boards import ASKED, Asked, filled
from tests.monitoring.stack import Stack, monitoring, serving
from tests.monitoring.trainers import Trainer, everything

_SCALE = 1 / 120
_SECONDS = 12.0  # that the healthy run goes on after the other's end

EMPTY = {
    ("Learning rate", "B"),  # there are not several optimizers
    ("Loss scale", "A"),  # nor is there mixed precision
    ("Other findings", "A"),  # the one that there is is critical
    ("Time of a step", "C"),  # nobody knows what is usual so early
}
HEALTHY = {
    ("Critical findings", "A"),
    ("Findings", "A"),
    ("Last bad step", "A"),
    ("NaN or Inf", "A"),
    ("Run ends", "A"),
    ("Variables whose gradient was NaN or Inf", "A"),
}
ENDED = {("Last sign of life", "A"), ("Last step", "A"), ("Left", "A")}
BAD = {"Where NaN and Inf were", "Gradients with NaN or Inf", "Found so far"}
"""Where what is healthy is 0, and only that."""


def found(watched: Stack, one: Asked, run: str, since: float) -> list[float]:
    """Returns all values that a query has, as Grafana would ask for them."""
    expr, now = filled(one.expr, run), time.time()
    series = watched.ask(expr, None if one.instant else (since, now))
    return [
        float(value)
        for one in series
        for _, value in one.get("values", [one.get("value")])
    ]


def _trained(stack: ExitStack, runs: Path, watched: Stack) -> dict[str, str]:
    """Trains two runs, one of which turns NaN; returns their ids."""
    trainers: dict[str, Trainer] = {}
    for name in ("healthy", "nan"):
        trainers[name] = everything(runs, name)
        stack.callback(trainers[name].stop)
        trainers[name].start()
    ids = {name: trainer.run_id for name, trainer in trainers.items()}
    watched.await_result(f'gradwatch_steps_total{{run="{ids["nan"]}"}} > 450')
    trainers["nan"].nan.set()
    watched.alerts.wait("GradwatchNonfiniteBatch", ids["nan"])
    time.sleep(_SECONDS)
    return ids


def test_every_query_finds_what_it_should(tmp_path: Path) -> None:
    """Of a healthy run and of one that turned NaN; what is drawn is finite."""
    runs, since = tmp_path / "runs", time.time()
    runs.mkdir()
    with ExitStack() as stack:
        service = stack.enter_context(serving(runs))
        watched = stack.enter_context(
            monitoring(tmp_path / "built", [service], time_scale=_SCALE)
        )
        ids = _trained(stack, runs, watched)
        values = {
            (name, one): found(watched, one, run, since)
            for name, run in ids.items()
            for one in ASKED
        }
    for name in ids:
        empty = {(one.where, one.ref) for one in ASKED if not values[name, one]}
        assert empty == {*EMPTY, *(HEALTHY if name == "healthy" else ENDED)}
        drawn = [one for one in ASKED if one.kind != "variable"]
        assert all(math.isfinite(v) for one in drawn for v in values[name, one])
        bad = [o for o in ASKED if o.where in BAD and any(values[name, o])]
        assert {one.where for one in bad} == (
            {*BAD} if name == "nan" else set()
        )
