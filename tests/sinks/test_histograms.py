"""Histograms as TensorBoard's own reader gives them back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from gradwatch.records import Block, Run, Schema
from gradwatch.signals import HISTOGRAM_EDGES, Slot
from gradwatch.sinks.histograms import Histograms, triples
from gradwatch.sinks.readings import read_blocks
from gradwatch.sinks.tensorboard import TensorBoardSink

RUN = Run("run", "run", 1000.0, "host", {}, {})
LOSS = Schema((Slot("loss"),))
GRADIENT = Slot("gradient_histogram", "dense/kernel")
WEIGHT = Slot("weight_histogram", "dense/kernel")
ACTIVATION = Slot("activation_histogram", "dense")

Series = list[tuple[int, float, NDArray[np.float32]]]


def count(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Counts values of any shape as a probe does: NaN and Inf not at all."""
    finite = values[np.isfinite(values)]
    places = np.searchsorted(HISTOGRAM_EDGES, finite, side="right")
    return np.bincount(places, minlength=99)


def xrays(steps: list[int], values: dict[Slot, NDArray[np.floating]]) -> Block:
    """Returns a Block of steps 0 to 99 with X-rays of `[X, n]` values."""
    every = np.arange(100)
    return Block(
        every,
        1000.0 + every / 100,
        np.zeros((100, 1), np.float32),
        np.isin(every, steps),
        {
            slot: np.array([count(row) for row in rows])
            for slot, rows in values.items()
        },
    )


def written(path: Path, *blocks: Block) -> dict[str, Series]:
    """Returns tag -> (step, wall time, `[k, 3]`) as TensorBoard reads it."""
    sink = TensorBoardSink(path)
    sink.open(RUN, LOSS)
    for block in blocks:
        sink.write(block)
    sink.close()
    return read(path)


def read(path: Path) -> dict[str, Series]:
    """Returns the histograms of a run directory."""
    reader = event_accumulator.EventAccumulator(
        str(path), size_guidance={event_accumulator.TENSORS: 0}
    )
    reader.Reload()
    tags = reader.summary_metadata
    return {
        tag: [
            (e.step, e.wall_time, tensor_util.make_ndarray(e.tensor_proto))
            for e in reader.Tensors(tag)
        ]
        for tag in tags
        if tags[tag].plugin_data.plugin_name == "histograms"
    }


def inside(values: NDArray[np.floating], left: float, right: float) -> int:
    """Returns how many values are in a half-open interval."""
    return int(((values >= left) & (values < right)).sum())


def test_values_are_counted_where_they_are(tmp_path: Path) -> None:
    """Each bin of weights and outputs holds what lies between its edges."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, 5000)).astype(np.float32) / 100
    outputs = np.maximum(random.normal(size=(2, 300)), 0)
    block = xrays([10, 50], {WEIGHT: weights, ACTIVATION: outputs})
    series = written(tmp_path, block)
    assert set(series) == {
        "weight_histogram/dense/kernel",
        "activation_histogram/dense",
    }
    for rows, values in zip(
        (
            series["weight_histogram/dense/kernel"],
            series["activation_histogram/dense"],
        ),
        (weights, outputs),
        strict=True,
    ):
        assert [row[:2] for row in rows] == [(10, 1000.1), (50, 1000.5)]
        for (_, _, bins), entries in zip(rows, values, strict=True):
            assert bins[:, 2].sum() == entries.size
            for left, right, size in bins:
                assert inside(entries, left, right) == size


def test_gradients_are_shown_by_magnitude(tmp_path: Path) -> None:
    """Both signs are in one bin of log10; zeros are left of -20."""
    random = np.random.default_rng(1)
    gradients = random.normal(size=(1, 4000)) * 1e-6
    gradients[0, :500] = 0.0
    series = written(tmp_path, xrays([7], {GRADIENT: gradients}))
    ((step, _, bins),) = series["gradient_histogram/dense/kernel"]
    assert step == 7
    assert bins[0].tolist() == [-20.5, -20.0, 500.0]
    assert bins[:, 2].sum() == 4000
    sizes = np.log10(np.abs(gradients[0, 500:]))
    for left, right, size in bins[1:]:
        assert inside(sizes, left, right) == size


@given(
    hnp.arrays(np.int64, 99, elements=st.integers(0, 2**20)),
    st.sampled_from([GRADIENT, WEIGHT]),
)
def test_nothing_counted_is_lost(counts: NDArray[np.int64], slot: Slot) -> None:
    """Bins adjoin, rise, begin and end with entries, and sum to the same."""
    counts[::3] = 0
    counts[2:40] = 0
    bins = triples(slot, counts)
    assert bins[:, 2].sum(dtype=np.float64) == counts.sum()
    assert (bins[1:, 0] == bins[:-1, 1]).all()
    assert (bins[:, 0] < bins[:, 1]).all()
    assert np.isfinite(bins).all()
    empty = bins[:, 2] == 0
    assert not (empty[1:] & empty[:-1]).any()
    if counts.any():
        assert bins[0, 2] > 0
        assert bins[-1, 2] > 0


def test_signs_of_gradients_are_summed() -> None:
    """A gradient and its negative have the same picture."""
    values = np.random.default_rng(2).lognormal(-8, 5, 1000)
    one = triples(GRADIENT, count(values))
    other = triples(GRADIENT, count(-values))
    assert one.tolist() == other.tolist()


def test_what_has_no_finite_entry_is_not_shown(tmp_path: Path) -> None:
    """A gradient that is all NaN leaves a gap, not an empty picture."""
    gradients = np.ones((3, 8))
    gradients[1] = np.nan
    series = written(tmp_path, xrays([1, 2, 3], {GRADIENT: gradients}))
    steps = [s for s, _, _ in series["gradient_histogram/dense/kernel"]]
    assert steps == [1, 3]


@given(cuts=st.sets(st.integers(0, 100)))
def test_cutting_blocks_changes_no_event(cuts: set[int]) -> None:
    """The same X-rays are shown, whatever rows came in one Block."""
    steps = [0, 10, 11, 40, 99]
    values = np.random.default_rng(3).normal(size=(5, 100))
    whole = xrays(steps, {GRADIENT: values, WEIGHT: values})
    edges = [0, *sorted(cuts), 100]
    parts = [
        whole.rows((whole.steps >= a) & (whole.steps < b))
        for a, b in pairwise(edges)
    ]
    share = 5000
    shown = list(Histograms().events(whole, share))
    again = Histograms()
    assert 0 < len(shown) < len(steps)
    assert shown == [e for part in parts for e in again.events(part, share)]


def test_histograms_keep_to_their_share(tmp_path: Path) -> None:
    """They thin out, but stay within an eighth of the budget, to the end."""
    random = np.random.default_rng(4)
    slots = [Slot("weight_histogram", f"layer_{i}/kernel") for i in range(5)]
    sink = TensorBoardSink(tmp_path, budget_bytes=2**20)
    sink.open(RUN, LOSS)
    for first in range(0, 20_000, 100):
        values = random.normal(size=(5, 2, 500))
        block = xrays([20, 60], dict(zip(slots, values)))
        sink.write(
            Block(
                block.steps + first,
                block.times + first / 100,
                block.values,
                block.xray,
                block.histograms,
            )
        )
    sink.close()
    series = read(tmp_path)
    assert len(series) == 5
    steps = [step for step, _, _ in series["weight_histogram/layer_0/kernel"]]
    assert steps[:2] == [20, 60]
    assert steps[-1] > 15_000
    rows = series["weight_histogram/layer_0/kernel"]
    assert sum(bins.nbytes for _, _, bins in rows) * 5 < 2**20 / 8
    packed = {
        step
        for _, block in read_blocks(tmp_path)
        for step in block.steps[block.xray].tolist()
    }
    assert max(packed) > 18_000
    assert len(packed) > 2 * len(steps)
    assert _size(tmp_path) <= 2**20


def test_a_tag_says_what_it_shows(tmp_path: Path) -> None:
    """The first histogram of a tag is described, the axis with it."""
    values = np.ones((2, 3))
    block = xrays([1, 2], {GRADIENT: values})
    written(tmp_path, block)
    reader = event_accumulator.EventAccumulator(str(tmp_path))
    reader.Reload()
    metadata = reader.SummaryMetadata("gradient_histogram/dense/kernel")
    assert "Entries of one variable's gradient" in metadata.summary_description
    assert "log10" in metadata.summary_description


@pytest.mark.parametrize("value", [0.0, 1e-30, -1e-30])
def test_constant_tensors_have_one_bin(value: float) -> None:
    """A tensor of zeros is one narrow bin around zero, or left of -20."""
    counts = count(np.full(10, value))
    ((left, right, size),) = triples(WEIGHT, counts).tolist()
    assert left < 0 < right < 1e-19
    assert size == 10
    assert triples(GRADIENT, counts).tolist() == [[-20.5, -20.0, 10.0]]


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.iterdir())
