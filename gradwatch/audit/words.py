"""An audit's report in words: a terminal, Markdown, HTML."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradwatch.audit.figure import sparks, svg
from gradwatch.audit.report import AuditFinding, AuditReport
from gradwatch.strict_json import dumps

__all__ = ["html", "markdown", "printed", "text"]

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_COLUMNS = 88
_LONG = 200  # characters of an input's values


def printed(report: AuditReport, console: Console) -> None:
    """Prints a report: what was tried, what was found, what was measured."""
    console.print(Text(_title(report), "bold"))
    for line in _about(report):
        console.print(Text(line, "dim"))
    for finding in report.findings:
        head = Text(f"{finding.severity}: {finding.check}")
        head.stylize(_STYLES[finding.severity])
        if finding.subject:
            head.append(f" of {finding.subject}", "default")
        console.print(head)
        for line in _lines(finding):
            console.print(Padding.indent(Text(line), 4))
    if report.measurements:
        console.print(_table(report))
    console.print(Text(_verdict(report), "bold"))


def text(report: AuditReport) -> str:
    """Returns what `printed` prints, without colours."""
    console = Console(
        file=io.StringIO(), width=_COLUMNS, color_system=None, highlight=False
    )
    printed(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def markdown(report: AuditReport) -> str:
    """Returns a report as Markdown; nothing in it is read as such."""
    lines = [f"### {_quoted(_title(report))}", ""]
    lines += [f"- {_quoted(line)}" for line in _about(report)]
    for finding in report.findings:
        of = f" of `{finding.subject}`" if finding.subject else ""
        lines += ["", f"**{finding.severity}: {finding.check}**{of}", ""]
        lines += [f"- {_quoted(line)}" for line in _lines(finding)]
    if report.measurements:
        lines += ["", "| measured | of | | |", "|---|---|---|---|"]
    lines += [
        f"| {m.name} | {_quoted(m.subject)} | {_number(m.value)} | "
        f"{_quoted(m.text)} |"
        for m in report.measurements
    ]
    drawn = [line for curve in report.curves for line in sparks(curve)]
    if drawn:
        lines += ["", "```text", *drawn, "```"]
    return "\n".join([*lines, "", _quoted(_verdict(report)), ""])


def html(report: AuditReport) -> str:
    """Returns a report as a piece of HTML, for notebooks."""
    colours = {"critical": "#c62828", "warning": "#a86500", "info": "#0277bd"}
    parts = [f"<p><b>{escape(_title(report))}</b><br>"]
    parts.append("<br>".join(map(escape, _about(report))) + "</p>")
    for finding in report.findings:
        of = f" of {finding.subject}" if finding.subject else ""
        said = "<br>".join(map(escape, _lines(finding)))
        parts.append(
            f'<p><b style="color:{colours[finding.severity]}">'
            f"{finding.severity}: {finding.check}</b>{escape(of)}<br>{said}</p>"
        )
    rows = "".join(
        f"<tr><td>{escape(m.name)}</td><td>{escape(m.subject)}</td>"
        f"<td>{escape(_number(m.value))}</td><td>{escape(m.text)}</td></tr>"
        for m in report.measurements
    )
    parts.append(f"<table>{rows}</table>" if rows else "")
    parts += [f"<p>{svg(curve)}</p>" for curve in report.curves]
    return "".join([*parts, f"<p>{escape(_verdict(report))}</p>"])


def _title(report: AuditReport) -> str:
    where = f" ({report.source})" if report.source else ""
    return f"Audit of {report.kind} {report.subject}{where}"


def _about(report: AuditReport) -> Iterator[str]:
    for name, domain in report.domain.items():
        yield f"{name}: {domain}"


def _lines(finding: AuditFinding) -> Iterator[str]:
    yield finding.message
    for name, values in finding.inputs.items():
        yield f"{name} = {_short(values)}"
    if finding.values:
        told = (f"{n} = {_number(v)}" for n, v in finding.values.items())
        yield ", ".join(told)
    if finding.source:
        yield f"At {finding.source}"
    if finding.advice:
        yield f"Advice: {finding.advice}"


def _table(report: AuditReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for m in report.measurements:
        row = (m.name, m.subject, _number(m.value), m.text)
        table.add_row(*(Text(cell) for cell in row))
    return table


def _verdict(report: AuditReport) -> str:
    took = f"{report.seconds:.1f} s"
    if not report.findings:
        return f"Nothing found, in {took}."
    one = "1 finding" if len(report.findings) == 1 else (
        f"{len(report.findings)} findings"
    )  # fmt: skip
    return f"{one}, the worst {report.worst}, in {took}."


def _short(values: Any) -> str:
    said = str(values) if isinstance(values, str) else dumps(values)
    return said if len(said) <= _LONG else f"{said[: _LONG - 1]}…"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else _short(value)


def _quoted(line: str) -> str:
    """Text that Markdown shows as it stands."""
    marked = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in line)
    return " ".join(marked.split())
