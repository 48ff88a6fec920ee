"""What flows through gradwatch: identity, schema and records.

Frozen data only; numpy and the standard library. Everything here but a Block
can be written as JSON (`strict_json.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from gradwatch.facts import Anatomy, Cut, CutKind, Layer, Variable
from gradwatch.reports import Autopsy
from gradwatch.signals import SIGNALS, Slot

__all__ = [
    "SEVERITIES",
    "Anatomy",
    "Autopsy",
    "Beat",
    "Block",
    "Cut",
    "CutKind",
    "Epoch",
    "Finding",
    "Layer",
    "Phase",
    "Record",
    "Run",
    "Schema",
    "Severity",
    "Variable",
    "explained",
    "of_step",
]

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The mildest first."""
Phase = Literal[
    "starting", "running", "evaluating", "finished", "failed", "interrupted"
]


@dataclass(frozen=True, slots=True)
class Run:
    """What one `GradWatch` object watches. Identity, never behaviour.

    Attributes:
        id: unique, `[A-Za-z0-9._-]{1,64}`; the run directory's name.
        name: what the user calls it; the id begins with it.
        start: Unix time in seconds.
        host: name of the machine.
        versions: package name to version.
        labels: the user's own key-value pairs.
    """

    id: str
    name: str
    start: float
    host: str
    versions: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Schema:
    """The ordered slots of a run: what the columns of a Block mean.

    Attributes:
        slots: one a column, K in all.
        first_step: the first training batch that it describes.
    """

    slots: tuple[Slot, ...] = ()
    first_step: int = 0

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that name these slots, in this order."""
        text = json.dumps(self.slots)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def xray(self) -> NDArray[np.bool_]:
        """Bool `[K]`: the columns that are measured on X-ray steps only."""
        signals = [SIGNALS.get(slot.signal) for slot in self.slots]
        return np.array([s is not None and s.xray for s in signals], np.bool_)

    def column(self, signal: str) -> int | None:
        """Returns the column of a run-scoped signal, `None` if not measured."""
        slot = Slot(signal)
        return self.slots.index(slot) if slot in self.slots else None

    def columns(self, signal: str) -> dict[str, int]:
        """Returns subject -> column of a signal, in the slots' order."""
        return {
            slot.subject: i
            for i, slot in enumerate(self.slots)
            if slot.signal == signal
        }


@dataclass(frozen=True, slots=True)
class Block:
    """Readings that the device handed over at once: B steps, K slots.

    Attributes:
        steps: int64 `[B]`, 0-based numbers of the training batches, ascending.
        times: float64 `[B]`, Unix seconds at which the step ended.
        values: float32 `[B, K]`, columns as in the Schema.
        xray: bool `[B]`; X-ray slots of a row are measured only where true.
        histograms: Slot -> int64 `[X, bins]`, one row per true `xray` row:
            numbers of entries between `signals.HISTOGRAM_EDGES`.
    """

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    xray: NDArray[np.bool_]
    histograms: Mapping[Slot, NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def empty(cls, columns: int) -> Self:
        """Returns a Block without rows: a trace was made, nothing ran yet."""
        return cls(
            np.zeros(0, np.int64),
            np.zeros(0),
            np.zeros((0, columns), np.float32),
            np.zeros(0, np.bool_),
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.steps)

    def rows(self, which: NDArray[np.bool_]) -> Block:
        """Returns the Block of the rows where `which`, bool `[B]`, is true."""
        return Block(
            self.steps[which],
            self.times[which],
            self.values[which],
            self.xray[which],
            {s: h[which[self.xray]] for s, h in self.histograms.items()},
        )

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.steps, self.times, self.values, self.xray)
        histograms = self.histograms.values()
        return sum(a.nbytes for a in arrays) + sum(h.nbytes for h in histograms)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What Keras says at the end of an epoch.

    Attributes:
        epoch: 0-based.
        step: training batches finished so far (the next step's number).
        time: Unix seconds.
        metrics: name -> value of the training metrics, `loss` among them.
        validation: name -> value of the validation metrics, without `val_`.
    """

    epoch: int
    step: int
    time: float
    metrics: Mapping[str, float]
    validation: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life: sent at least every few seconds, also when nothing ends.

    Attributes:
        time: Unix seconds.
        phase: what the trainer is doing.
        executions: calls of the train function begun so far.
        next: Unix seconds before which the next one is promised; 0 = never.
        reason: why the run ended as it did, `""` otherwise.
        dropped: name of a sink -> Blocks that its full queue has dropped.
        errors: name of a sink -> exceptions that it has raised.
        queued: name of a sink -> records that wait in its queue.
        costs: what gradwatch does -> seconds that it took so far: `begin`, of
            the training thread; `judge` and `write`, of a core.
        step_began: Unix seconds at which the execution that runs now began;
            0 = none does, or it is not known.
        compiling: whether that execution is being traced and compiled.
    """

    time: float
    phase: Phase
    executions: int
    next: float
    reason: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    step_began: float = 0.0
    compiling: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A Rule's claim about a run.

    Attributes:
        rule: name of the rule.
        severity: `critical` = the run or its weights are lost, `warning` = the
            run wastes time, `info` = worth knowing.
        subject: variable, layer, component or data field to look at first.
        first_step: 0-based step at which it began.
        last_step: last step that was seen when it was said.
        evidence: the numbers that speak for it.
        causes: hypotheses, strongest first.
        message: what is wrong, one or two sentences in the user's own names.
        advice: what a practitioner would do.
    """

    rule: str
    severity: Severity
    subject: str
    first_step: int
    last_step: int
    evidence: Mapping[str, Any]
    causes: tuple[str, ...]
    message: str
    advice: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads back what `dumps` wrote."""
        return cls(**{**data, "causes": tuple(data["causes"])})


Record = Block | Epoch | Finding | Beat | Autopsy


def of_step(findings: Iterable[Finding], step: int) -> Finding | None:
    """Returns the finding that says that a step was not finite, if any."""
    named = (f for f in findings if f.first_step == step)
    serious = (
        f
        for f in named
        if f.severity == "critical" or f.rule.startswith("nonfinite")
    )
    return next(serious, None)


def explained(findings: Iterable[Finding], autopsy: Autopsy) -> list[Finding]:
    """Returns findings, that of an autopsy's step completed by its headline.

    Its advice as well, if there is one.
    """
    known = list(findings)
    told = of_step(known, autopsy.step)
    return [
        replace(
            f,
            message=f"{f.message} {autopsy.headline()}",
            advice=autopsy.advice or f.advice,
        )
        if f is told
        else f
        for f in known
    ]
