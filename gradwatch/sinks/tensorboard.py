"""TensorBoard's event file: the history of a run.

What it writes into `events.out.tfevents.*` of the run directory:

- plain scalars (`scalars.py`), among them each variable's ratio of update to
  weight, at most `RATE` values a second by the rows' own times. Slots of the
  run (`loss`), of its parts and X-ray slots have an equal share of that each.
  The first row is shown, and the row at a finding's first step unless later
  rows are shown already: steps of a tag only ascend, because TensorBoard drops
  data when they go back;
- histograms of X-ray rows (`histograms.py`);
- findings and autopsies as text, a layout for the custom scalars page;
- packed readings (`readings.py`): every row of the cadence as far as half of
  the budget allows, and all rows around the first findings as far as the other
  half does (`thinning.py`).

It guarantees that the event files of the run directory never exceed the budget,
that a file can be read whenever the process dies (each record is with the
operating system when `write` returns), and that after an error of the disk the
next record is written as if nothing had happened.

Of third parties it needs tensorboard's protocol buffers only; TensorFlow never.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as charts
from tensorboard.plugins.text import metadata as text_plugin

from gradwatch.errors import expected
from gradwatch.records import (
    Autopsy,
    Block,
    Epoch,
    Finding,
    Record,
    Run,
    Schema,
)
from gradwatch.signals import Slot, tag
from gradwatch.sinks import readings
from gradwatch.sinks.event_file import EventFile
from gradwatch.sinks.findings import Texts
from gradwatch.sinks.histograms import Histograms
from gradwatch.sinks.scalars import (
    UPDATE_RATIO,
    Scalars,
    add_scalar,
    scalar_groups,
)
from gradwatch.sinks.thinning import FINDINGS, Recorder, stride
from gradwatch.strict_json import dumps

__all__ = ["TensorBoardSink"]

_SMALLEST_BUDGET = 2**20
_HISTOGRAMS = 4  # they may take one part in four of what recording may use

_CHARTS = {
    "Does it learn?": {
        "Loss": [r"loss$", r"validation_loss$"],
        "Components of the loss": [r"loss_component/.*"],
        "Metrics": [r"metric/.*", r"validation_metric/.*"],
        "Learning rate": [r"learning_rate$", r"optimizer_learning_rate/.*"],
    },
    "Do gradients arrive?": {
        "Gradient norm, global": [r"gradient_norm$", r"applied_gradient_norm$"],
        "Gradient norm of each variable": [r"variable_gradient_norm/.*"],
    },
    "Do weights move, do units live?": {
        "Update to weight ratio of each variable": [rf"{UPDATE_RATIO}/.*"],
        "Share of silent units of each layer": [r"layer_silent_ratio/.*"],
    },
    "Is it fast?": {
        "Seconds a step, and waiting for data": [r"step_time$", r"data_wait$"],
    },
}
"""Category -> chart -> what its tags match, from their beginning."""


class TensorBoardSink:
    """Writes the history of a run for TensorBoard and for `read_blocks`.

    Args:
        path: the run directory; made if it does not exist.
        every_steps: cadence of recorded readings, in steps.
        budget_bytes: size that the run's event files never exceed.
    """

    name = "tensorboard"

    def __init__(
        self,
        path: str | Path,
        *,
        every_steps: int = 1,
        budget_bytes: int = 256 * 2**20,
    ) -> None:
        _require("every_steps", 1, every_steps)
        _require("budget_bytes", _SMALLEST_BUDGET, budget_bytes)
        self._every_steps = every_steps
        self._budget = budget_bytes
        self._file = EventFile(path)
        self._recorder = Recorder(every_steps)
        self._scalars: list[Scalars] = []
        self._histograms = Histograms()
        self._schema = Schema()
        self._begun: Schema | None = None
        self._recorded = 0
        self._now = 0.0
        self._shown = -1
        self._firsts: list[int] = []
        self._epoch_step = -1
        self._texts = Texts()

    def open(self, run: Run, schema: Schema) -> None:
        """Goes on in the run's file; notes a new Schema in it."""
        self._now = max(self._now, run.start)
        if schema != self._schema or not self._scalars:
            self._scalars = scalar_groups(schema)
        self._schema = schema
        self._file.measure()
        self._begin()

    def write(self, record: Record) -> None:
        """Writes one record and hands it to the operating system."""
        if not self._begin():
            return
        if isinstance(record, Block):
            self._write_block(record)
        elif isinstance(record, Finding):
            self._write_finding(record)
        elif isinstance(record, Epoch):
            self._write_epoch(record)
        elif isinstance(record, Autopsy):
            event = self._event(record.step)
            text = record.to_markdown().encode()
            _add(event, "autopsies", text_plugin.PLUGIN_NAME, text)
            self._put(event)
        else:
            self._now = record.time

    def close(self) -> None:
        """Closes the file; `open` goes on in the same one."""
        self._file.close()

    def _begin(self) -> bool:
        """Writes what goes before this Schema's records, if not done yet.

        Returns:
            False if the budget has no room even for that.
        """
        if self._file.size == 0:
            version = self._event(0)
            version.file_version = "brain.Event:2"
            self._begun, self._recorded = None, 0
            if not self._put(version):
                return False
        if self._begun == self._schema:
            return True
        text = dumps(self._schema).encode()
        schema = self._event(self._schema.first_step)
        _add(schema, readings.SCHEMA_TAG, readings.PLUGIN, text)
        name, plugin = charts.CONFIG_SUMMARY_TAG, charts.PLUGIN_NAME
        _add(schema, name, plugin, _layout())
        if self._put(schema):
            self._begun = self._schema
        return self._begun == self._schema

    def _write_block(self, block: Block) -> None:
        if not len(block):
            return
        self._now = float(block.times[-1])
        half = self._budget // 2
        thin = stride(half - self._room() + self._recorded, half)
        recorded = self._recorder.record(self._schema, block, thin)
        self._put_readings(self._schema, recorded)
        self._show(block.rows(block.steps > self._shown), thin)

    def _show(self, block: Block, thin: int) -> None:
        if not len(block):
            return
        self._shown = int(block.steps[-1])
        due = block.steps % self._every_steps == 0
        forced = np.isin(block.steps, self._firsts)
        for group in self._scalars:
            for event in group.events(block, due, forced, thin):
                self._put_thinned(event)
        share = max(self._room() // _HISTOGRAMS, 1)
        for event in self._histograms.events(block, share):
            self._put_thinned(event)

    def _put_readings(self, schema: Schema, block: Block) -> None:
        if not len(block):
            return
        event = self._event(int(block.steps[0]))
        packed = readings.encode(schema.hash, block)
        _add(event, readings.TAG, readings.PLUGIN, packed)
        if self._recorder.inside(block.steps).any():
            self._put(event)
        else:
            self._put_thinned(event)

    def _write_finding(self, finding: Finding) -> None:
        if len(self._firsts) < FINDINGS:
            self._firsts.append(finding.first_step)
        # Before anything can fail: its window is to be complete from now on.
        left_out = self._recorder.add(finding)
        step, text = self._texts.add(finding)
        event = self._event(step)
        name = f"findings/{finding.rule}"
        _add(event, name, text_plugin.PLUGIN_NAME, text.encode())
        self._put(event)
        for schema, block in left_out:
            self._put_readings(schema, block)

    def _write_epoch(self, epoch: Epoch) -> None:
        self._now = epoch.time
        if epoch.step <= self._epoch_step:
            return
        self._epoch_step = epoch.step
        event = self._event(epoch.step)
        text = dumps(epoch).encode()
        _add(event, readings.EPOCH_TAG, readings.PLUGIN, text)
        for name, value in epoch.metrics.items():
            add_scalar(event, tag(Slot("metric", name)), value)
        for name, value in epoch.validation.items():
            metric = Slot("validation_metric", name)
            slot = Slot("validation_loss") if name == "loss" else metric
            add_scalar(event, tag(slot), value)
        self._put(event)

    def _event(self, step: int) -> event_pb2.Event:
        return event_pb2.Event(step=step, wall_time=self._now)

    def _room(self) -> int:
        """Bytes for what is thinned out; the rest has as many.

        Two halves, so that thinned recording never stops because of findings,
        nor a finding's window because of recording.
        """
        return (self._budget - self._file.others) // 2

    def _put(self, event: event_pb2.Event) -> bool:
        """Writes what must not be lost, while its half of the budget lasts."""
        limit = self._room() + self._recorded
        return self._file.append(event.SerializeToString(), limit)

    def _put_thinned(self, event: event_pb2.Event) -> None:
        before = self._file.size
        limit = self._room() + before - self._recorded
        self._file.append(event.SerializeToString(), limit)
        self._recorded += self._file.size - before


def _require(argument: str, least: int, received: int) -> None:
    if received < least:
        what = f"{least} or more"
        raise ValueError(expected(argument, what, received, "Raise it."))


def _add(event: event_pb2.Event, name: str, plugin: str, data: bytes) -> None:
    value = event.summary.value.add(tag=name)
    value.metadata.plugin_data.plugin_name = plugin
    value.tensor.dtype = types_pb2.DT_STRING
    value.tensor.string_val.append(data)


def _layout() -> bytes:
    layout = layout_pb2.Layout()
    for question, found in _CHARTS.items():
        category = layout.category.add(title=question)
        for title, tags in found.items():
            category.chart.add(title=title).multiline.tag.extend(tags)
    return bytes(layout.SerializeToString())
