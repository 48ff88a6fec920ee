"""The story of a run in a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradwatch.records import SEVERITIES, Finding

__all__ = ["summary"]

_TOLD = 3


def summary(
    snapshot: Mapping[str, Any], findings: Sequence[Finding], path: Path
) -> str:
    """Returns what happened in a run, in ten lines at most.

    Of the findings, the first three of those that are most severe.

    Args:
        snapshot: plain data of `RunState.snapshot()`.
        findings: all findings of the run.
        path: the run directory.
    """
    planned = snapshot["planned_steps"]
    steps = f"{snapshot['steps']}" + (f" of {planned}" if planned else "")
    reason = f" ({snapshot['reason']})" if snapshot["reason"] else ""
    newest = {(s, subject): v for s, subject, v in snapshot["values"]}
    lines = [
        f"Run {snapshot['run']['id']}: {snapshot['phase']}{reason} "
        f"after {steps} steps"
    ]
    known = [s for s in ("loss", "gradient_norm") if (s, "") in newest]
    if known:
        numbers = [f"{signal}: {newest[signal, '']:.4g}" for signal in known]
        lines.append(f"  {', '.join(numbers)}")
    if not findings:
        lines.append("  no findings")
    worst = sorted(findings, key=lambda f: -SEVERITIES.index(f.severity))
    for finding in worst[:_TOLD]:
        lines += [
            f"  {finding.severity}: {finding.rule} at step "
            f"{finding.first_step}: {finding.message}",
            f"    {finding.advice}",
        ]
    if len(findings) > _TOLD:
        lines.append(f"  and {len(findings) - _TOLD} more findings")
    return "\n".join([*lines, f"  files: {path}"])
