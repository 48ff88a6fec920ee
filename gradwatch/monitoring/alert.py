"""An alert, and the words of PromQL that several of them use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradwatch.monitoring.thresholds import Settings

__all__ = ["RUN", "Alert", "finite", "going", "greatest", "recent"]

RUN = "job, instance, run"
"""The labels that name a run; `job` and `instance` are Prometheus' own."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert rule and what is known about it.

    Attributes:
        name: `Gradwatch` and what is wrong, in CamelCase.
        severity: as a finding's; `none` for the dead-man's switch.
        expr: PromQL.
        meaning: one sentence, the same for all runs: the summary.
        said: what the notification says, with `{{ $labels.run }}` and others.
        look: for the runbook: what to look at first.
        act: for the runbook: what to do.
        wait: seconds for which `expr` must hold: the `for`.
        steady: whether it goes on firing for a minute, so that a restart of
            the service does not resolve it.
        dashboard: uid and query of the dashboard that shows it.
    """

    name: str
    severity: Literal["critical", "warning", "info", "none"]
    expr: str
    meaning: str
    said: str
    look: str
    act: str
    wait: float = 0.0
    steady: bool = True
    dashboard: str = "gradwatch-run?var-run={{ $labels.run }}"


def finite(selector: str) -> str:
    """Returns a selector without what is NaN or infinite now.

    One NaN would poison every mean, and a comparison with it is false.
    """
    return f"({selector} > -Inf < +Inf)"


def greatest(selector: str, by: str = RUN) -> str:
    """Returns one series for each run, whatever labels there are more."""
    return f"max by ({by}) ({selector})"


def recent(s: Settings, by: str = RUN, **labels: str) -> str:
    """Returns the times of findings that are news; 0 would mean never."""
    said = s.series("finding_last_timestamp_seconds", **labels)
    seconds = s.number("finding_seconds")
    return f"{greatest(said, by)} > 0 > time() - {seconds}"


def going(s: Settings) -> str:
    """Returns what `and on (job, instance, run)` keeps: runs not at an end."""
    ended = s.series("run_end_timestamp_seconds")
    return f"and on ({RUN}) {ended} == 0"
