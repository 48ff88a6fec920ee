"""RunState: the present of a Run, folded from records.

One object per run, folded by the pump, read by the in-process endpoint and by
the state sink through `snapshot()`; the same plain data is what `state.json`
holds. numpy and the standard library only. Counters are monotonic and never
fed a value that is not finite.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from gradwatch.records import (
    Anatomy,
    Autopsy,
    Beat,
    Block,
    Epoch,
    Finding,
    Phase,
    Record,
    Run,
    Schema,
    explained,
)
from gradwatch.series import Distribution, History, Newest
from gradwatch.signals import Slot
from gradwatch.tally import Tally

__all__ = ["ENDED", "VERSION", "RunState", "Snapshot"]

Snapshot = Mapping[str, Any]
"""Plain data as `RunState.snapshot` returns it."""

ENDED: tuple[Phase, ...] = ("finished", "failed", "interrupted")
"""The phases in which the trainer has said that a run is over."""

VERSION = 1
"""Of the snapshot's format. Readers refuse a higher one."""

_WINDOW = 256  # steps over which loss_window_mean and _noise are taken
_FIRST = 16  # steps that loss_window_first is taken from
_TRACED = 50  # variables with a history
_PARTS = 16  # components of the loss with one
_SLOTS = 4000  # newest values kept; more would pass 1 MB of state.json
_FINDINGS = 50
_AUTOPSIES = 50
_SUBJECTS = 100  # label sets of finding_last_timestamp_seconds


class RunState:
    """Newest values, monotonic counters and a short history of one run.

    Thread-safe: `fold` and `snapshot` may be called from any thread.

    Args:
        run: the run's identity.
    """

    def __init__(self, run: Run) -> None:
        self._lock = threading.Lock()
        self._run = run
        self._anatomy = Anatomy()
        self._schema = Schema()
        self._beat = Beat(run.start, "starting", 0, 0.0)
        self._phase_since = run.start
        self._epoch: Epoch | None = None
        self._newest = Newest(Schema(), ())
        self._traced: list[int] = []
        self._steps = 0
        self._last_step_time = 0.0
        self._stepping = False
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._first: list[float] = []
        self._findings: deque[Finding] = deque(maxlen=_FINDINGS)
        self._autopsies: deque[Autopsy] = deque(maxlen=_AUTOPSIES)
        self._finding_counts: Counter[tuple[str, str]] = Counter()
        self._finding_times: dict[tuple[str, str, str], float] = {}
        self._tally = Tally()
        self._step_time = Distribution(
            [m * 10.0**e for e in range(-4, 3) for m in (1, 2.5, 5)]
        )
        self._gradient_norm = Distribution([10.0**e for e in range(-8, 5)])
        self._history = History()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """Takes a new anatomy and schema; counters go on.

        With the same slots as before, values and history go on too.
        """
        with self._lock:
            if schema.slots != self._schema.slots:
                self._choose(anatomy, schema)
            self._anatomy, self._schema = anatomy, schema

    def _choose(self, anatomy: Anatomy, schema: Schema) -> None:
        """Chooses the slots that have values and history; both begin anew.

        Everyday slots go before X-ray slots, large variables before small.
        """
        rare = schema.xray.tolist()
        sizes = {v.path: int(np.prod(v.shape)) for v in anatomy.variables}
        order = sorted(
            range(len(schema.slots)),
            key=lambda i: (
                rare[i],
                -sizes.get(schema.slots[i].subject, 1 << 62),
            ),
        )
        norms = set(schema.columns("variable_gradient_norm").values())
        run = [
            i
            for i, slot in enumerate(schema.slots)
            if not (slot.subject or rare[i])
        ]
        largest = [i for i in order if i in norms][:_TRACED]
        parts = list(schema.columns("loss_component").values())[:_PARTS]
        self._traced = run + parts + sorted(largest)
        self._newest = Newest(schema, sorted(order[:_SLOTS]))
        self._history = History()

    @property
    def anatomy(self) -> Anatomy:
        """The newest facts about the model."""
        return self._anatomy

    def fold(self, record: Record) -> None:
        """Takes the next record of the run."""
        with self._lock:
            if isinstance(record, Block):
                self._fold_block(record)
            elif isinstance(record, Finding):
                self._fold_finding(record)
            elif isinstance(record, Autopsy):
                self._autopsies.append(record)
                told = explained(self._findings, record)
                self._findings = deque(told, maxlen=_FINDINGS)
            elif isinstance(record, Epoch):
                self._epoch = record
            else:
                if record.phase != self._beat.phase:
                    self._phase_since = record.time
                self._beat = record
                self._stepping &= record.phase == "running"

    def _fold_finding(self, finding: Finding) -> None:
        key = (finding.rule, finding.severity, finding.subject)
        self._findings.append(finding)
        self._finding_counts[key[:2]] += 1
        if key in self._finding_times or len(self._finding_times) < _SUBJECTS:
            self._finding_times[key] = self._beat.time

    def _fold_block(self, block: Block) -> None:
        if not len(block):
            return
        # How long a step took that follows none, or a pause, is not known.
        previous = [self._last_step_time] if self._stepping else []
        durations = np.diff(block.times, prepend=previous)
        self._step_time.add(durations.clip(min=0.0))  # a wall clock may go back
        self._steps = int(block.steps[-1]) + 1
        self._last_step_time = float(block.times[-1])
        self._stepping = True
        self._newest.add(block)
        self._history.add(block.steps, block.values[:, self._traced])
        column = self._schema.column
        if (loss := column("loss")) is not None:
            losses = block.values[:, loss]
            finite = losses[np.isfinite(losses)].tolist()
            self._losses.extend(finite)
            self._first += finite[: _FIRST - len(self._first)]
        if (norm := column("gradient_norm")) is not None:
            self._gradient_norm.add(block.values[:, norm])
        self._tally.add(self._schema, block)

    def snapshot(self) -> dict[str, Any]:
        """Returns the present as plain data, the contents of `state.json`."""
        with self._lock:
            return {
                "version": VERSION,
                "run": asdict(self._run),
                "rank": "0",
                "model": self._anatomy.model,
                "optimizer": self._anatomy.optimizer.get("class_name", ""),
                "variables": len(self._anatomy.variables),
                **self._life(),
                "epoch": self._epoch.epoch if self._epoch else -1,
                "steps": self._steps,
                "resumed_from": self._anatomy.resumed_from,
                "planned_steps": self._anatomy.planned_steps,
                "last_step_time": self._last_step_time,
                "values": self._values(),
                "counters": self._counters(),
                "step_duration": self._step_time.plain(),
                "step_gradient_norm": self._gradient_norm.plain(),
                "loss_window": self._loss_window(),
                "history": self._plain_history(),
                "findings": [asdict(f) for f in self._findings],
                "autopsies": [found.brief() for found in self._autopsies],
            }

    def _life(self) -> dict[str, Any]:
        """What the last sign of life says."""
        beat = self._beat
        return {
            "phase": beat.phase,
            "phase_since": self._phase_since,
            "reason": beat.reason,
            "end": beat.time if beat.phase in ENDED else 0.0,
            "heartbeat": beat.time,
            "next_beat": beat.next,
            "executions": beat.executions,
            "step_began": beat.step_began,
            "compiling": beat.compiling,
            "queued": dict(beat.queued),
            "costs": dict(beat.costs),
            "dropped": dict(beat.dropped),
            "errors": dict(beat.errors),
        }

    def _values(self) -> list[list[Any]]:
        """Newest values as `[signal, subject, value]`."""
        values = self._newest.plain()
        if self._epoch:
            validation = dict(self._epoch.validation)
            if "loss" in validation:
                loss = validation.pop("loss")
                values.append(["validation_loss", "", loss])
            metrics = self._epoch.metrics
            values += [["metric", k, v] for k, v in metrics.items()]
            values += [
                ["validation_metric", k, v] for k, v in validation.items()
            ]
        return values

    def _counters(self) -> dict[str, Any]:
        """Monotonic counts; keyed ones as `[*labels, count]`."""
        return {
            **self._tally.plain(),
            "findings": [[*k, n] for k, n in self._finding_counts.items()],
            "finding_times": [[*k, t] for k, t in self._finding_times.items()],
        }

    def _loss_window(self) -> dict[str, float]:
        """Mean and robust spread of the last finite losses, and the first one.

        The first is what `rules.progress` calls so. The spread is 1.4826 times
        the median absolute deviation, which is the standard deviation if the
        losses are normal (Rousseeuw & Croux 1993).
        """
        losses = np.asarray(self._losses, np.float64)
        if not len(losses):
            return {}
        spread = np.median(np.abs(losses - np.median(losses)))
        first = np.asarray(self._first, np.float64)
        return {
            "mean": float(losses.mean()),
            "noise": float(1.4826 * spread),
            "first": float(max(np.mean(first[:2]), np.median(first))),
        }

    def _plain_history(self) -> dict[str, Any]:
        rows = np.asarray(self._history.rows, np.float32)
        slots: list[Slot] = (
            [self._schema.slots[i] for i in self._traced] if len(rows) else []
        )
        return {
            "steps": list(self._history.steps),
            "series": [
                [*slot, rows[:, i].tolist()] for i, slot in enumerate(slots)
            ],
        }
