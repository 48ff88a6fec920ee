"""The story of a run in a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradwatch.records import Finding

__all__ = ["summary"]


def summary(
    snapshot: Mapping[str, Any], findings: Sequence[Finding], path: Path
) -> str:
    """Returns what happened in a run.

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
    for signal in ("loss", "gradient_norm"):
        if (signal, "") in newest:
            lines.append(f"  {signal}: {newest[signal, '']:.4g}")
    if not findings:
        lines.append("  no findings")
    for finding in findings:
        lines += [
            f"  {finding.severity}: {finding.rule} at step "
            f"{finding.first_step}: {finding.message}",
            f"    {finding.advice}",
        ]
    return "\n".join([*lines, f"  files: {path}"])
