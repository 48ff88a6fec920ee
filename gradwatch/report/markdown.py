"""A report as Markdown, for a pull request."""

from __future__ import annotations

from gradwatch.drawing.words import utc
from gradwatch.report.contents import Contents
from gradwatch.report.story import last_values, ranked, verdict
from gradwatch.sinks.findings import markdown as told
from gradwatch.sinks.findings import plain

__all__ = ["markdown"]

_FINDINGS = 20


def markdown(contents: Contents) -> str:
    """Returns run, result, findings, autopsies and the last values.

    Nothing in the run is read as Markdown or HTML.
    """
    snapshot = contents.snapshot
    run = snapshot["run"]
    result = verdict(contents)
    about = [
        f"`{run['id']}`",
        plain(f"on {run['host']}"),
        plain(snapshot["model"] or "model"),
        plain(snapshot["optimizer"] or "optimizer"),
        plain(f"begun {utc(run['start'])}"),
    ]
    parts = [
        f"## {plain(run['name'])}: {plain(result.title)}",
        f"{plain(result.text)}",
        " · ".join(about),
    ]
    parts += [
        f"**Autopsy of step {autopsy.step}**: {plain(autopsy.headline())} "
        f"{plain(autopsy.advice)}".rstrip()
        for autopsy in contents.autopsies
    ]
    findings = ranked(contents)
    if findings:
        parts.append("### Findings")
    parts += [told(finding) for _, finding in findings[:_FINDINGS]]
    if len(findings) > _FINDINGS:
        parts.append(f"and {len(findings) - _FINDINGS} more findings")
    values = last_values(contents)
    if values:
        rows = [
            f"| {plain(name)} | {value} |" for name, value in values.items()
        ]
        head = ["| last value | |", "|---|---|"]
        parts += ["### Last values", "\n".join([*head, *rows])]
    return "\n\n".join(parts) + "\n"
