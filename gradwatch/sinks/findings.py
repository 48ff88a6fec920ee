"""Findings as files: `findings.jsonl`, and the Markdown of one finding.

Standard library only. The file is append-only, one line of strict JSON a
finding, given to the operating system line by line: killing the trainer leaves
at most the last line cut off. A finding that an autopsy explains has a second
line, the longer message in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from gradwatch.records import (
    Autopsy,
    Finding,
    Record,
    Run,
    Schema,
    explained,
)
from gradwatch.strict_json import dumps

__all__ = [
    "FILE",
    "FindingsSink",
    "Texts",
    "cell",
    "markdown",
    "plain",
    "read_findings",
]

FILE = "findings.jsonl"
"""Its name in the run directory."""

_CELL = 500  # characters of one value in the evidence table
_TEXTS = 20  # findings in one text, the newest
_TEXT = 4000  # characters of message or advice


class FindingsSink:
    """Appends every finding to `findings.jsonl`.

    Args:
        path: the run directory; made if it does not exist.
    """

    name = "findings"

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path) / FILE
        self._told: list[Finding] = []

    def open(self, run: Run, schema: Schema) -> None:
        """Makes the run directory."""
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        """Appends a Finding, and again once it is explained."""
        if isinstance(record, Finding):
            self._told.append(record)
            self._append(record)
        elif isinstance(record, Autopsy):
            before, self._told = self._told, explained(self._told, record)
            for old, new in zip(before, self._told, strict=True):
                if new is not old:
                    self._append(new)

    def close(self) -> None:
        """Does nothing: no file is open between two findings."""

    def _append(self, finding: Finding) -> None:
        line = dumps(finding).encode() + b"\n"
        # Opened per line: findings are rare, and no state survives an error.
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # a line was cut off
                    line = b"\n" + line
            file.write(line)


def read_findings(run_dir: str | Path) -> list[Finding]:
    """Returns the findings of a run in the order in which they were made.

    Those that were explained as they are then. Lines that were cut off are
    passed over; without the file there are none.

    Args:
        run_dir: the run directory.
    """
    path = Path(run_dir) / FILE
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    findings: list[Finding] = []
    for line in lines:
        try:
            finding = Finding.from_json(json.loads(line))
        except ValueError:
            continue
        again = [i for i, f in enumerate(findings) if _completes(finding, f)]
        if again:
            findings[again[0]] = finding
        else:
            findings.append(finding)
    return findings


def _completes(new: Finding, old: Finding) -> bool:
    """Whether a finding is an older one that was explained meanwhile."""
    longer = new.message.startswith(f"{old.message} ")
    same = replace(new, message=old.message, advice=old.advice) == old
    return longer and same


class Texts:
    """Findings as texts of which a page keeps one a rule and step.

    TensorBoard replaces a text by a later one at the same or a lower step. So
    findings that came at the same step, or for an earlier one, join one text.
    """

    def __init__(self) -> None:
        self._texts: dict[str, tuple[int, list[str]]] = {}

    def add(self, finding: Finding) -> tuple[int, str]:
        """Returns the step and the Markdown to write for its rule."""
        step, texts = self._texts.get(finding.rule, (-1, []))
        if finding.first_step > step:
            step, texts = finding.first_step, []
        texts = [*texts, markdown(finding)][-_TEXTS:]
        self._texts[finding.rule] = (step, texts)
        return step, "\n\n---\n\n".join(texts)


def markdown(finding: Finding) -> str:
    """Returns a finding as Markdown: message, advice, causes, evidence.

    Nothing in the finding is read as Markdown or HTML.
    """
    where = f" · {plain(finding.subject)}" if finding.subject else ""
    steps = f"steps {finding.first_step} to {finding.last_step}"
    lines = [
        f"**{finding.severity}** · {plain(finding.rule)}{where} · {steps}",
        plain(finding.message[:_TEXT]),
        plain(finding.advice[:_TEXT]),
        "\n".join(f"- {plain(cause[:_TEXT])}" for cause in finding.causes),
        _table(finding),
    ]
    return "\n\n".join(line for line in lines if line)


def _table(finding: Finding) -> str:
    rows = [
        f"| {plain(str(name)[:_CELL])} | {plain(cell(value))} |"
        for name, value in finding.evidence.items()
    ]
    head = ["| evidence | value |", "|---|---|"]
    return "\n".join(head + rows) if rows else ""


def cell(value: object) -> str:
    """Returns a value of the evidence as text, at most 500 characters."""
    read = json.loads(dumps(value))  # NaN has become the string "NaN"
    text = read if isinstance(read, str) else dumps(read)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def plain(text: str) -> str:
    """Returns one line of Markdown in which all means itself only."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_{}\[\]()>#+\-.!|])", r"\\\1", line)
