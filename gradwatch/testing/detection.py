"""Detection: what rules say about the zoo, next to what is true.

Scenarios are in two halves by a fixed hash of their names. Thresholds may be
chosen by the first half only; both are reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gradwatch.interfaces import Rule
from gradwatch.records import Finding
from gradwatch.replay import judge
from gradwatch.testing.recording import Recording
from gradwatch.testing.scenario import Scenario
from gradwatch.testing.unit import in_unit

__all__ = ["Verdict", "half", "judged", "table"]

_SERIOUS = ("warning", "critical")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in the run of a scenario.

    Attributes:
        scenario: what was run.
        seed: of the run.
        findings: all of them, as they were told.
        learned: whether a healthy program was healthy with this seed, which is
            whether it reached its quality; a faulty one needs its twin to tell.
        unit: how many times as large the loss was made before it was judged.
    """

    scenario: Scenario
    seed: int
    findings: tuple[Finding, ...]
    learned: bool = True
    unit: float = 1.0

    @property
    def right(self) -> Finding | None:
        """The first finding that names the fault, severe enough."""
        names = (self.scenario.rule, *self.scenario.also)
        info = self.scenario.severity == "info"
        for finding in self.findings:
            if finding.rule in names and (info or finding.severity in _SERIOUS):
                return finding
        return None

    @property
    def culprit(self) -> bool:
        """Whether one of the right findings names the place."""
        names = (self.scenario.rule, *self.scenario.also)
        return any(
            self.scenario.subject in finding.subject
            for finding in self.findings
            if finding.rule in names
        )

    @property
    def critical(self) -> Finding | None:
        """The first critical finding."""
        found = (f for f in self.findings if f.severity == "critical")
        return next(found, None)

    @property
    def serious(self) -> list[Finding]:
        """Findings of severity warning or higher."""
        return [f for f in self.findings if f.severity in _SERIOUS]


def half(name: str) -> int:
    """Returns 0 for the half that thresholds are chosen by, else 1."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


def judged(
    scenario: Scenario,
    recording: Recording,
    rules: Callable[[], Sequence[Rule]],
    unit: float = 1.0,
) -> Verdict:
    """Returns what new rules say about a recorded run of a scenario.

    Args:
        scenario: what was run.
        recording: what rules got.
        rules: makes them.
        unit: how many times as large the loss is made, see `in_unit`.
    """
    findings = tuple(judge(rules(), in_unit(recording, unit).received))
    learned = scenario.holds(recording.quality, recording.error)
    learned |= bool(scenario.rule)
    return Verdict(scenario, recording.seed, findings, learned, unit)


def table(verdicts: Iterable[Verdict]) -> str:
    """Returns, rule by rule, hits, places and false alarms, as Markdown.

    The healthy, fixed twins among them, are in the last rows. Runs of healthy
    programs that have learned nothing with their seed are counted apart: there
    a warning is no false alarm, nor is silence a miss. So are those that were
    judged once more with a loss in another unit, which nothing may depend on.
    """
    known = list(verdicts)
    head = "| rule | runs | named | place | told at step (median) |"
    rows = [head, "|---|---|---|---|---|"]
    faulty = [v for v in known if v.scenario.rule]
    for rule in dict.fromkeys(v.scenario.rule for v in faulty):
        mine = [v for v in faulty if v.scenario.rule == rule]
        rows.append(_row(f"`{rule}`", mine))
    for name, part in _parts(faulty).items():
        rows.append(_row(name, part))
    healthy = [v for v in known if not v.scenario.rule and v.learned]
    for name, part in _parts(v for v in healthy if v.unit == 1).items():
        rows.append(_healthy_row(f"healthy, {name}", part, "falsely"))
    for unit in sorted({v.unit for v in healthy} - {1}):
        part = [v for v in healthy if v.unit == unit]
        name = f"healthy, loss times {unit:g}"
        rows.append(_healthy_row(name, part, "falsely"))
    lame = [v for v in known if v.unit == 1 and not v.learned]
    if lame:
        name = "meant to be healthy, did not learn"
        rows.append(_healthy_row(name, lame, "told"))
    return "\n".join(rows)


def _healthy_row(name: str, verdicts: Sequence[Verdict], how: str) -> str:
    alarms = sum(bool(v.serious) for v in verdicts)
    return f"| {name} | {len(verdicts)} | {alarms} {how} |  |  |"


def _parts(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """All, and those of the two halves; a twin is where its scenario is."""
    known = list(verdicts)
    halves = [half(v.scenario.name.removesuffix("_fixed")) for v in known]
    return {
        "all": known,
        "first half": [v for v, h in zip(known, halves) if h == 0],
        "second half": [v for v, h in zip(known, halves) if h == 1],
    }


def _row(name: str, verdicts: Sequence[Verdict]) -> str:
    found = [v.right for v in verdicts]
    steps = sorted(f.last_step for f in found if f is not None)
    placed = [v for v in verdicts if v.scenario.subject]
    right = sum(v.culprit for v in placed)
    cells = [
        name,
        str(len(verdicts)),
        str(len(steps)),
        f"{right} of {len(placed)}" if placed else "",
        str(steps[len(steps) // 2]) if steps else "",
    ]
    return f"| {' | '.join(cells)} |"
