"""RunState with X-rays: newest values, history and size."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.records import Anatomy, Block, Run, Schema, Variable
from gradwatch.runstate import RunState
from gradwatch.signals import SIGNALS, Slot
from gradwatch.sinks.state import FILE, LIMIT, StateSink

RUN = Run("run", "run", 1000.0, "host", {}, {})
SCHEMA = Schema(
    (
        Slot("loss"),
        Slot("variable_gradient_norm", "dense/kernel"),
        Slot("variable_weight_norm", "dense/kernel"),
        Slot("layer_silent_ratio", "dense"),
    )
)


def rows(xrays: set[int], count: int = 40, schema: Schema = SCHEMA) -> Block:
    """Returns rows whose values are their steps, X-ray slots where measured."""
    steps = np.arange(count)
    xray = np.isin(steps, list(xrays))
    values = np.empty((count, len(schema.slots)), np.float32)
    values[:] = steps[:, None]
    values[np.ix_(~xray, schema.xray)] = np.nan
    return Block(steps, steps.astype(np.float64), values, xray)


def begun(schema: Schema = SCHEMA, anatomy: Anatomy | None = None) -> RunState:
    """Returns the state of a run of which nothing is measured yet."""
    state = RunState(RUN)
    state.begin(Anatomy(), Schema())
    state.begin(anatomy or Anatomy(), schema)
    return state


def values(state: RunState) -> dict[Slot, float]:
    """Returns the newest values of a snapshot."""
    found: list[list[Any]] = state.snapshot()["values"]
    return {Slot(signal, subject): value for signal, subject, value in found}


@given(st.sets(st.integers(0, 39), min_size=1), st.sets(st.integers(0, 40)))
def test_xray_slots_keep_the_last_xray(xrays: set[int], cuts: set[int]) -> None:
    """However Blocks are cut, each slot has the last value measured."""
    state, whole = begun(), rows(xrays)
    for a, b in pairwise([0, *sorted(cuts), 40]):
        state.fold(whole.rows((whole.steps >= a) & (whole.steps < b)))
    last = float(max(xrays))
    assert values(state) == dict(zip(SCHEMA.slots, [39.0, 39.0, last, last]))


def test_xray_slots_have_no_value_before_the_first_xray() -> None:
    """What was never measured is not told, not even as NaN."""
    state = begun()
    assert values(state) == {}
    state.fold(rows(set()))
    assert list(values(state)) == list(SCHEMA.slots[:2])


def test_nan_of_an_xray_is_a_value() -> None:
    """A weight norm that is NaN in the last X-ray is told as NaN."""
    state, block = begun(), rows({3, 7})
    block.values[7, 2] = np.nan
    state.fold(block)
    assert math.isnan(values(state)[SCHEMA.slots[2]])
    assert values(state)[SCHEMA.slots[3]] == 7.0


def test_a_new_schema_forgets_xrays() -> None:
    """Values go on with the same slots, and begin anew with others."""
    state = begun()
    state.fold(rows({3}))
    state.begin(Anatomy(), Schema(SCHEMA.slots, first_step=40))
    assert values(state)[SCHEMA.slots[2]] == 3.0
    state.begin(Anatomy(), Schema(SCHEMA.slots[1:], first_step=40))
    assert values(state) == {}


def test_history_is_of_everyday_slots() -> None:
    """The short history has no series that is NaN nearly everywhere."""
    schema = Schema((*SCHEMA.slots, Slot("layer_mean")))
    state = begun(schema)
    state.fold(rows({3, 30}, schema=schema))
    series = state.snapshot()["history"]["series"]
    assert [Slot(*row[:2]) for row in series] == list(SCHEMA.slots[:2])
    assert series[0][2] == [float(step) for step in range(40)]


def test_history_has_the_parts_of_the_loss() -> None:
    """The first 16 of many components have a history."""
    parts = [Slot("loss_component", f"loss/term_{i}") for i in range(20)]
    schema = Schema((*SCHEMA.slots, *parts))
    state = begun(schema)
    state.fold(rows(set(), schema=schema))
    series = state.snapshot()["history"]["series"]
    traced = [Slot(*row[:2]) for row in series]
    assert traced == [SCHEMA.slots[0], *parts[:16], SCHEMA.slots[1]]


def test_a_large_model_fits_into_its_state(tmp_path: Path) -> None:
    """With 10,000 slots everyday values and history are all there."""
    paths = [f"transformer/block_{i}/attention/kernel" for i in range(1000)]
    layers = [f"transformer/block_{i}/attention" for i in range(800)]
    rare = [s for s in SIGNALS.values() if s.xray and not s.histogram]
    slots = [Slot("loss")]
    slots += [Slot("variable_gradient_norm", path) for path in paths]
    for signal in rare:
        parts = {"variable": paths, "layer": layers}.get(signal.scope, [])
        slots += [Slot(signal.name, part) for part in parts]
    schema = Schema(tuple(slots))
    variables = tuple(Variable(p, (9, 9), "float32", True, 1.0) for p in paths)
    state = begun(schema, Anatomy(variables=variables))
    block = rows({0, 50}, 120, schema)
    block.values[:] += np.random.default_rng(0).random(block.values.shape)
    state.fold(block)
    StateSink(tmp_path, state).close()
    assert len(slots) > 9000
    assert (tmp_path / FILE).stat().st_size <= LIMIT
    written = json.loads((tmp_path / FILE).read_bytes())
    told = {Slot(*row[:2]) for row in written["values"]}
    assert len(told) == 4000
    assert set(slots[:1001]) < told
    assert written["history"]["steps"] == list(range(120))


@given(st.sets(st.integers(0, 40)))
def test_first_loss_is_that_of_the_first_steps(cuts: set[int]) -> None:
    """The mean of two or the median of 16; what is not finite is left out."""
    state, whole = begun(), rows(set())
    whole.values[0, 0] = np.nan
    for a, b in pairwise([0, *sorted(cuts), 40]):
        state.fold(whole.rows((whole.steps >= a) & (whole.steps < b)))
    assert state.snapshot()["loss_window"]["first"] == 8.5
    falling = begun()
    block = rows(set())
    block.values[:, 0] *= -1
    falling.fold(block)
    assert falling.snapshot()["loss_window"]["first"] == -0.5
