"""The event file as TensorBoard sees it: scalars, texts, layout."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow as stub
from tensorboard.plugins.custom_scalar import layout_pb2

from gradwatch.catalogue import CATALOGUE
from gradwatch.records import Beat, Block, Epoch, Finding, Run, Schema
from gradwatch.signals import Slot, tag
from gradwatch.sinks.readings import read_blocks
from gradwatch.sinks.scalars import RATE, UPDATE_RATIO
from gradwatch.sinks.tensorboard import TensorBoardSink

RUN = Run("run", "run", 1000.0, "host", {}, {})
SCHEMA = Schema(
    (
        Slot("loss"),
        Slot("gradient_norm"),
        Slot("variable_gradient_norm", "dense/kernel"),
        Slot("variable_weight_norm", "dense/kernel"),
    )
)


def block(first: int, rows: int, columns: int = 4, gap: float = 1.0) -> Block:
    """Returns a Block whose values are their steps, one row every `gap` s."""
    steps = np.arange(first, first + rows)
    values = np.repeat(steps[:, None], columns, axis=1)
    return Block(
        steps,
        1000.0 + gap * steps.astype(np.float64),
        values.astype(np.float32),
        np.zeros(rows, np.bool_),
    )


def finding(first: int, message: str = "It is bad.") -> Finding:
    """Returns a finding about one step."""
    return Finding(
        "dead_layer", "warning", "dense", first, first, {"norm": 0.5}, (),
        message, "Fix it.",
    )  # fmt: skip


def events(run_dir: Path) -> list[event_pb2.Event]:
    """Returns all events of a run, as tensorboard's own reader sees them."""
    found = []
    for path in sorted(run_dir.iterdir()):
        reader = stub.PyRecordReader_New(str(path))
        while True:
            try:
                reader.GetNext()
            except (errors.OutOfRangeError, errors.DataLossError):
                break
            found.append(event_pb2.Event.FromString(reader.record()))
        reader.file_handle.close()
    return found


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Returns tag -> (step, wall time, value) of the plain scalars."""
    series = defaultdict(list)
    for event in events(run_dir):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                row = (event.step, event.wall_time, value.simple_value)
                series[value.tag].append(row)
    return dict(series)


def tensors(run_dir: Path, name: str) -> list[tuple[int, str, bytes]]:
    """Returns (step, plugin, bytes) of the tensors with a tag."""
    return [
        (
            event.step,
            value.metadata.plugin_data.plugin_name,
            value.tensor.string_val[0],
        )
        for event in events(run_dir)
        for value in event.summary.value
        if value.tag == name
    ]


def test_scalars_have_tag_step_and_time(tmp_path: Path) -> None:
    """Each everyday slot is a series by step, at the times of its rows."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, SCHEMA)
    sink.write(block(0, 3))
    sink.write(block(3, 2))
    sink.close()
    rows = [(step, 1000.0 + step, float(step)) for step in range(5)]
    everyday = SCHEMA.slots[:3]
    assert scalars(tmp_path) == {tag(slot): rows for slot in everyday}


def test_scalars_keep_the_rate(tmp_path: Path) -> None:
    """At a thousand steps a second, 200 values a second are shown."""
    columns = 40
    slots = [
        Slot("variable_gradient_norm", f"v{i}") for i in range(columns - 1)
    ]
    schema = Schema((Slot("loss"), *slots))
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, schema)
    for first in range(0, 10_000, 100):
        sink.write(block(first, 100, columns, gap=0.001))
    sink.close()
    series = scalars(tmp_path)
    shown = sum(len(rows) for rows in series.values())
    assert 0.8 * 10 * RATE < shown <= 10 * RATE + columns
    assert len(series["loss"]) > 20 * len(series["variable_gradient_norm/v0"])
    assert all(rows[0][0] == 0 for rows in series.values())


def test_the_row_of_a_finding_is_shown(tmp_path: Path) -> None:
    """However fast the steps are, the step of a finding has its scalars."""
    sink = TensorBoardSink(tmp_path, every_steps=5)
    sink.open(RUN, SCHEMA)
    for first in range(0, 1000, 100):
        if first == 500:
            sink.write(finding(567))
        sink.write(block(first, 100, gap=0.0001))
    sink.close()
    for rows in scalars(tmp_path).values():
        steps = [step for step, _, _ in rows]
        assert 567 in steps
        assert len(steps) < 10
        assert steps == sorted(set(steps))
        assert all(step % 5 == 0 for step in steps if step != 567)


def test_steps_never_go_back(tmp_path: Path) -> None:
    """Rows that come again at lower steps are not shown a second time."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, SCHEMA)
    sink.write(block(0, 10))
    sink.write(block(5, 10))
    sink.close()
    steps = [step for step, _, _ in scalars(tmp_path)["loss"]]
    assert steps == list(range(15))


def test_nan_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    """NaN is a value; an X-ray slot has values in X-ray rows only."""
    rows = block(0, 3)
    rows.values[1] = np.nan
    rows.values[2] = np.inf
    rows.xray[1] = True
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, SCHEMA)
    sink.write(rows)
    sink.close()
    series = scalars(tmp_path)
    assert math.isnan(series["loss"][1][2])
    assert series["gradient_norm"][2][2] == math.inf
    assert math.isnan(series["variable_gradient_norm/dense/kernel"][1][2])
    ((step, time, value),) = series["variable_weight_norm/dense/kernel"]
    assert (step, time) == (1, 1001.0)
    assert math.isnan(value)


def test_xray_rows_are_shown_whatever_the_cadence(tmp_path: Path) -> None:
    """Neither cadence nor fast everyday rows keep X-ray values away."""
    sink = TensorBoardSink(tmp_path, every_steps=10)
    sink.open(RUN, SCHEMA)
    xrays = [3, 250, 251, 777]
    for first in range(0, 1000, 100):
        rows = block(first, 100, gap=0.01)
        rows.xray[:] = np.isin(rows.steps, xrays)
        sink.write(rows)
    sink.close()
    series = scalars(tmp_path)
    weights = series["variable_weight_norm/dense/kernel"]
    assert [(step, value) for step, _, value in weights] == [
        (3, 3.0), (250, 250.0), (777, 777.0)
    ]  # fmt: skip
    assert all(step % 10 == 0 for step, _, _ in series["loss"])


def test_the_row_of_a_finding_shows_its_xray(tmp_path: Path) -> None:
    """At the first step of a finding X-ray values are forced as well."""
    schema = Schema(tuple(Slot("layer_mean", f"l{i}") for i in range(500)))
    rows = block(0, 100, 500, gap=0.01)
    rows.xray[::10] = True
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, schema)
    sink.write(finding(41))
    sink.write(finding(50))
    sink.write(rows)
    sink.close()
    steps = [step for step, _, _ in scalars(tmp_path)["layer_mean/l0"]]
    assert steps == [0, 50]


def test_every_steps_thins_readings(tmp_path: Path) -> None:
    """The cadence holds for readings; around a finding all are there."""
    sink = TensorBoardSink(tmp_path, every_steps=10)
    sink.open(RUN, SCHEMA)
    for first in range(0, 1000, 50):
        if first == 500:
            sink.write(finding(505))
        sink.write(block(first, 50))
    sink.close()
    steps = [s for _, b in read_blocks(tmp_path) for s in b.steps.tolist()]
    wanted = set(range(0, 1000, 10)) | set(range(505 - 64, 505 + 65))
    assert sorted(steps) == sorted(wanted)


def test_epochs_are_scalars(tmp_path: Path) -> None:
    """Epochs bring training metrics, validation metrics, validation loss."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, SCHEMA)
    metrics = {"loss": 0.5, "accuracy": 0.75}
    for epoch in range(2):
        step, time = 10 * epoch + 10, 1000.0 + epoch
        sink.write(Epoch(epoch, step, time, metrics, metrics))
    sink.write(Epoch(2, 20, 1009.0, metrics, metrics))
    sink.write(Beat(1010.0, "running", 1, 1020.0))
    sink.close()
    half = [(10, 1000.0, 0.5), (20, 1001.0, 0.5)]
    more = [(10, 1000.0, 0.75), (20, 1001.0, 0.75)]
    assert scalars(tmp_path) == {
        "metric/loss": half,
        "metric/accuracy": more,
        "validation_loss": half,
        "validation_metric/accuracy": more,
    }


def test_findings_are_texts(tmp_path: Path) -> None:
    """A finding is a text at its first step, under its rule's name."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, SCHEMA)
    sink.write(finding(5, "One."))
    sink.write(finding(5, "Two."))
    sink.write(finding(8, "Three."))
    sink.close()
    texts = tensors(tmp_path, "findings/dead_layer")
    assert [(step, plugin) for step, plugin, _ in texts] == [
        (5, "text"),
        (5, "text"),
        (8, "text"),
    ]
    assert b"One" in texts[1][2]
    assert b"Two" in texts[1][2]
    assert b"| norm | 0\\.5 |" in texts[2][2]


def test_the_layout_groups_what_belongs_together(tmp_path: Path) -> None:
    """The custom scalars page asks questions, and has charts that answer."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, SCHEMA)
    sink.close()
    ((_, plugin, data),) = tensors(tmp_path, "custom_scalars__config__")
    assert plugin == "custom_scalars"
    layout = layout_pb2.Layout.FromString(data)
    charts = {
        c.title: list(c.multiline.tag)
        for category in layout.category
        for c in category.chart
    }
    norms = charts["Gradient norm of each variable"]
    assert norms == [r"variable_gradient_norm/.*"]
    known = {*(signal.name for signal in CATALOGUE), UPDATE_RATIO}
    asked = [tag for tags in charts.values() for tag in tags]
    assert {re.split(r"\$|/", tag)[0] for tag in asked} <= known
    assert len(asked) == len(set(asked))


def test_updates_are_shown_as_a_share_of_the_weights(tmp_path: Path) -> None:
    """On X-ray rows, where the weights are not 0."""
    names = ("variable_update_norm", "variable_weight_norm")
    slots = tuple(Slot(n, v) for v in ("a", "b") for n in names)
    values = [[0.5, 4.0, 1.0, 0.0], [1.0, 2.0, 1.0, 8.0]]
    rows = Block(
        np.arange(2),
        np.arange(2.0) + 1.7e9,
        np.asarray(values, np.float32),
        np.asarray([True, False]),
    )
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, Schema(slots))
    sink.write(rows)
    sink.close()
    shown = scalars(tmp_path)
    assert shown.pop(f"{UPDATE_RATIO}/a") == [(0, 1.7e9, 0.125)]
    assert not [name for name in shown if name.startswith(UPDATE_RATIO)]


def test_a_second_fit_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """Closing twice and opening again adds to the file, without a new head."""
    sink = TensorBoardSink(tmp_path / "runs" / "a")
    for first in (0, 10, 20):
        sink.open(RUN, SCHEMA)
        sink.write(block(first, 10))
        sink.close()
        sink.close()
    (path,) = (tmp_path / "runs" / "a").iterdir()
    assert len(tensors(path.parent, "gradwatch/schema")) == 1
    assert len(list(read_blocks(path.parent))) == 3


def test_rows_before_the_first_trace_are_nothing(tmp_path: Path) -> None:
    """A run without slots and Blocks without rows can be written."""
    sink = TensorBoardSink(tmp_path)
    sink.open(RUN, Schema())
    sink.write(Block.empty(0))
    sink.write(finding(0))
    sink.open(RUN, SCHEMA)
    sink.write(Block.empty(4))
    sink.close()
    assert list(read_blocks(tmp_path)) == []
    assert len(tensors(tmp_path, "findings/dead_layer")) == 1


@pytest.mark.parametrize(
    ("argument", "value"), [("every_steps", 0), ("budget_bytes", 1000)]
)
def test_bad_arguments_are_refused(
    tmp_path: Path, argument: str, value: int
) -> None:
    """Errors name the argument and what was received, before any file."""
    arguments = {argument: value}
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: {value}"):
        TensorBoardSink(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
