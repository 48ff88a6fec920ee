"""A finding in a terminal: what, where, when, advice and evidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from gradwatch.records import Finding
from gradwatch.strict_json import dumps

__all__ = ["paragraphs", "plain"]

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_CELL = 300  # characters of one value of the evidence


def paragraphs(finding: Finding, console: Console) -> None:
    """Prints a finding; whole lines where nobody sees where they break."""
    steps = f"step {finding.first_step}"
    if finding.last_step != finding.first_step:
        steps = f"steps {finding.first_step} to {finding.last_step}"
    name = f"{finding.severity}: {plain(finding.rule)}"
    head = Text.assemble(
        (name, _STYLES.get(finding.severity, "")),
        f" at {steps}",
        f": {plain(finding.subject)}" if finding.subject else "",
    )
    console.print(head, soft_wrap=True)
    for line in _lines(finding):
        if console.is_terminal:
            console.print(Padding.indent(line, 4))
        else:
            console.print(Text("    ") + line, soft_wrap=True)


def _lines(finding: Finding) -> Iterator[Text]:
    yield Text(plain(finding.message))
    if finding.advice:
        yield Text(f"Advice: {plain(finding.advice)}")
    for cause in finding.causes:
        yield Text(f"Perhaps: {plain(cause)}")
    for name, value in finding.evidence.items():
        yield Text(f"{plain(name)} = {_value(value)}", "dim")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = plain(value if isinstance(value, str) else dumps(value))
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def plain(text: object) -> str:
    """Returns one line without control characters, whoever wrote it."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())
