"""Alerts on what rules found: one for each that can be critical.

All other warnings share one alert; findings of severity `info` have none.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.interfaces import Rule
from gradwatch.monitoring.alert import RUN, Alert, going, greatest, recent
from gradwatch.monitoring.losses import diverging, stalled
from gradwatch.monitoring.thresholds import Settings, duration
from gradwatch.rules import default_rules

__all__ = ["finding_alerts"]

_LOOK = (
    "The message, the step and the numbers behind it: `findings.jsonl` in the "
    "run directory, or *Text* in TensorBoard."
)
_AUTOPSY = (
    f"{_LOOK} Then which operation it was: "
    "`gradwatch autopsy RUN_DIR --model MODULE:NAME`."
)
_STALLED_LOOK = (
    f"{_LOOK} If there is no such finding, the alert is from raw metrics: "
    "compare `gradwatch_loss_window_mean` with `gradwatch_loss_window_first` "
    "and `gradwatch_component_constant_loss`."
)
_SINKS_LOOK = (
    "Which sink: `gradwatch_sink_errors_total` and "
    "`gradwatch_events_dropped_total` by `sink`. The run's log has the first "
    "exception."
)


def finding_alerts(s: Settings) -> Iterator[Alert]:
    """Yields the alerts on findings, in the order of the rules."""
    rules = default_rules()
    for rule in rules:
        if rule.name in _OWN:
            yield _OWN[rule.name](s, rule)
        elif rule.severity == "critical":
            yield _critical(s, rule)
    yield _warnings(s)


def _named(rule: Rule) -> str:
    return f"Gradwatch{type(rule).__name__}"


def _first(rule: str | None) -> str:
    """Returns a template that names the newest subjects of a finding.

    Args:
        rule: its rule; `None` = that of the alert's label.
    """
    named = "rule=%q" if rule is None else f'rule="{rule}"'
    query = (
        "topk(3, max by (subject) (gradwatch_finding_last_timestamp_seconds"
        f'{{job=%q,instance=%q,run=%q,{named},subject!=""}}))'
    )
    labels = ("job", "instance", "run", *(() if rule else ("rule",)))
    values = " ".join(f"$labels.{label}" for label in labels)
    return (
        f"{{{{ with printf `{query}` {values} | query }}}} Look at"
        "{{ range $i, $s := . }}{{ if $i }},{{ end }} {{ $s.Labels.subject }}"
        "{{ end }} first.{{ end }}"
    )


def _critical(
    s: Settings, rule: Rule, expr: str | None = None, look: str = ""
) -> Alert:
    """Returns the alert of one rule.

    Args:
        s: the settings.
        rule: what finds it.
        expr: fires too where this has a result.
        look: what to look at first, if not the finding.
    """
    found = recent(s, rule=rule.name, severity="critical")
    ends = rule.name in ("too_many_skips", "rolled_back")
    bad = ends or rule.name.startswith("nonfinite")
    return Alert(
        _named(rule),
        "critical",
        found if expr is None else f"({found})\nor\n({expr})",
        rule.meaning,
        f"Run {{{{ $labels.run }}}}: {rule.meaning}" + _first(rule.name),
        look or (_AUTOPSY if bad else _LOOK),
        rule.advice,
    )


def _stalled(s: Settings, rule: Rule) -> Alert:
    """Returns the alert on a finding, or on raw metrics that say the same."""
    found = f"{recent(s, rule=rule.name)}\n  {going(s)}"
    return Alert(
        _named(rule),
        "warning",
        f"(\n{found}\n)\nor\n(\n{stalled(s)}\n)",
        rule.meaning,
        f"Run {{{{ $labels.run }}}}: {rule.meaning}",
        _STALLED_LOOK,
        rule.advice,
        wait=s.scaled(300),
    )


def _skipped(s: Settings, rule: Rule) -> Alert:
    over = s.range(600)
    skipped = s.series("skipped_steps_total", reason="loss_scale")
    dropped = greatest(f"increase({skipped}[{over}])")
    steps = greatest(f"increase({s.series('steps_total')}[{over}])")
    ratio = f"{dropped}\n  / ({steps} >= 64) > {s.number('skipped_ratio')}"
    return _critical(s, rule, f"{ratio}\n{going(s)}")


def _diverging(s: Settings, rule: Rule) -> Alert:
    return _critical(s, rule, diverging(s), _STALLED_LOOK)


def _lost(s: Settings, rule: Rule) -> Alert:
    """Returns the alert on a sink that drops readings or raises.

    Not where the disk was full: that has an alert of its own, and is counted
    here when there is room again.
    """
    over = duration(s.value("telemetry_seconds"))
    twice = duration(2 * s.value("telemetry_seconds"))
    free = s.series("logdir_available_bytes")
    dropped = s.series("events_dropped_total")
    raised = s.series("sink_errors_total")
    return Alert(
        _named(rule),
        "warning",
        f"""\
(
sum by ({RUN}) (increase({dropped}[{over}])) > 0
or
sum by ({RUN}) (increase({raised}[{over}])) > 0
or
{recent(s, rule=rule.name)}
  {going(s)}
)
unless on (job, instance)
  min_over_time({free}[{twice}]) < {s.number("disk_free_bytes")}""",
        "A sink loses readings: it is too slow, or it fails.",
        "A sink of run {{ $labels.run }} drops readings or fails. Training "
        "goes on, guarded and judged.",
        _SINKS_LOOK,
        rule.advice,
    )


def _warnings(s: Settings) -> Alert:
    """Returns the one for all other warnings."""
    found = recent(
        s,
        f"{RUN}, rule",
        severity="warning",
        rule=f"!~{'|'.join(_WARNINGS)}",
    )
    return Alert(
        "GradwatchWarning",
        "warning",
        f"{found}\n{going(s)}",
        "A rule says that the run wastes time.",
        "Run {{ $labels.run }} has the finding {{ $labels.rule }}."
        + _first(None),
        _LOOK,
        "The finding's advice; the README says what each rule means. Warnings "
        "need nobody at night.",
    )


_OWN = {
    "skipped_updates": _skipped,
    "stalled_loss": _stalled,
    "diverging_loss": _diverging,
    "lost_readings": _lost,
}
_WARNINGS = ("stalled_loss", "lost_readings")
