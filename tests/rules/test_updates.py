"""Rules about updates: synthetic rows, cut anywhere, and real fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch import GradWatch
from gradwatch.records import Anatomy, Block, Finding, Schema
from gradwatch.rules.updates import ClippingAlways, SkippedUpdates
from gradwatch.rules.windows import Windows
from gradwatch.signals import Slot
from tests.models import classifier, data

SCALED = Schema(
    (
        Slot("update_dropped"),
        Slot("nonfinite"),
        Slot("loss_scale"),
        Slot("variable_gradient_norm", "a/kernel"),
        Slot("variable_gradient_norm", "b/kernel"),
    )
)
CLIPPED = Schema((Slot("clip_factor"), Slot("gradient_norm")))


def _judge(
    rule: Any, schema: Schema, values: Any, cuts: Any = (), steps: Any = None
) -> list[Finding]:
    values = np.array(values, np.float32)
    steps = np.arange(len(values)) if steps is None else np.array(steps)
    rule.begin(Anatomy(), schema)
    found: list[Finding] = []
    for part in np.split(np.arange(len(values)), sorted(cuts)):
        times, xray = part.astype(float), np.zeros(len(part), np.bool_)
        block = Block(steps[part], times, values[part], xray)
        found += rule.check(block)
    return found


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=80),
    st.lists(st.integers(0, 79)),
)
def test_windows_do_not_depend_on_blocks(gaps: Any, cuts: Any) -> None:
    """Each row is in the window of its step; only the last one may miss."""
    steps = np.cumsum(gaps) - 1
    cuts = sorted(c for c in cuts if c < len(steps))
    windows, found = Windows(8), []
    windows.begin([1])
    for part in np.split(np.arange(len(steps)), cuts):
        values = np.stack([part, -part], 1).astype(np.float32)
        xray = np.zeros(len(part), np.bool_)
        block = Block(steps[part], part.astype(float), values, xray)
        found += list(windows.cut(block))
    expected = [steps[steps // 8 == n] for n in np.unique(steps // 8)]
    if steps[-1] % 8 != 7:
        expected.pop()
    assert [w.steps.tolist() for w in found] == [e.tolist() for e in expected]
    rows = [-int(v) for w in found for v in w.values[:, 0]]
    assert rows == list(range(len(rows)))


def _scaling(share: float, steps: int = 256) -> Any:
    """Rows of loss scaling that drops a share of the updates."""
    dropped = (np.arange(steps) % 20) / 20 < share
    scale = 2.0**15 / 2.0 ** np.cumsum(dropped)
    norms = np.where(dropped, np.inf, 1.0)
    columns = (dropped, 0 * scale, scale, 0 * scale + 1, norms)
    return np.stack(columns, 1)


@settings(max_examples=20)
@given(st.sets(st.integers(1, 255)))
def test_updates_that_are_always_dropped(cuts: set[int]) -> None:
    """Critical after the third window; names whose gradient it is."""
    (finding,) = _judge(SkippedUpdates(), SCALED, _scaling(1.0), cuts)
    assert (finding.severity, finding.subject) == ("critical", "b/kernel")
    assert (finding.first_step, finding.last_step) == (32, 95)
    assert finding.evidence["dropped_share"] == 1.0


def test_updates_that_are_often_dropped() -> None:
    """Half of them warn; it becomes critical when all are."""
    rows = np.concatenate([_scaling(0.6), _scaling(1.0)])
    found = _judge(SkippedUpdates(), SCALED, rows)
    assert [f.severity for f in found] == ["warning", "critical"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_a_scale_that_finds_its_way(share: float) -> None:
    """Skips at the start, and rare ones later, are how it works."""
    rows = _scaling(share)
    rows[:24, 0] = 1
    assert _judge(SkippedUpdates(), SCALED, rows) == []


def test_dropped_by_the_guard() -> None:
    """After a bad step the latch drops the rest: told by another rule."""
    rows = _scaling(0.0)
    rows[70, 1] = 1
    rows[70:, 0] = 1
    assert _judge(SkippedUpdates(), SCALED, rows) == []


@pytest.mark.parametrize(
    ("share", "told"), [(1.0, True), (0.96, True), (0.9, False), (0.0, False)]
)
def test_clipping(share: float, told: bool) -> None:
    """Nearly always for three windows in a row, or not at all."""
    step = np.arange(512)
    factors = np.where(step % 25 < 25 * share, 0.25, 1.0)
    rows = np.stack([factors, 0 * factors + 4], 1)
    found = _judge(ClippingAlways(), CLIPPED, rows, [100, 200])
    assert bool(found) == told
    for finding in found:
        assert finding.severity == "info"
        assert finding.evidence == {"clip_factor": 0.25, "gradient_norm": 4.0}


def test_steps_that_only_collect_do_not_count() -> None:
    """With gradient accumulation most steps have no factor."""
    factors = np.where(np.arange(512) % 4 == 3, 0.5, np.nan)
    rows = np.stack([factors, 0 * factors + 4], 1)
    rows[:, 1] = 4
    (finding,) = _judge(ClippingAlways(), CLIPPED, rows)
    assert finding.evidence["clip_factor"] == 0.5


class Root(keras.layers.Layer):
    """The root of what is positive: at 0 its derivative is infinite."""

    def call(self, x: Any) -> Any:
        """Keras'."""
        return keras.ops.sqrt(keras.ops.relu(x))


def test_gradients_that_overflow_at_any_scale(tmp_path: Path) -> None:
    """A real fit in mixed precision; its twin with ReLU is fine."""

    def train(layer: Any) -> list[Finding]:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8, name="fine"), layer]
        head = keras.layers.Dense(3, name="head", dtype="float32")
        model = keras.Sequential([keras.Input((8,)), *layers, head])
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1)
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        watch = GradWatch(tmp_path)
        x, y = data()
        model.fit(x, y, 2, verbose=0, callbacks=[watch], shuffle=False)
        return watch.findings

    (finding,) = train(Root())
    assert (finding.rule, finding.severity) == ("skipped_updates", "critical")
    assert finding.evidence["loss_scale_after"] < 1e-9
    assert finding.subject.startswith("fine/") or "/fine/" in finding.subject
    told = [finding.rule for finding in train(keras.layers.ReLU())]
    assert "skipped_updates" not in told


def test_clipping_of_a_real_fit(tmp_path: Path) -> None:
    """A bound far below the usual norm is told, one far above is not."""
    told = []
    for bound in (1e-3, 1e3):
        model = classifier()
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=bound)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        watch = GradWatch(tmp_path, rules=[ClippingAlways()])
        x, y = data()
        model.fit(x, y, 2, verbose=0, callbacks=[watch], shuffle=False)
        told.append([f.rule for f in watch.findings])
    assert told == [["clipping_always"], []]
