"""What an audit says: findings, measurements, and the report of both.

Plain data: must import neither keras nor tensorflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gradwatch.records import SEVERITIES, Severity
from gradwatch.reports import Source

__all__ = [
    "AuditFinding",
    "AuditReport",
    "Curve",
    "Measurement",
]


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """A check's claim about a function, shown by one input of it.

    Attributes:
        check: snake_case name of what is wrong (`wrong_gradient`).
        severity: `critical`: it does not train, or trains something else;
            `warning`: it does so for some inputs, or wastes time; `info`:
            worth knowing, no action needed.
        subject: name of the input or weight that is concerned, `""` for all.
        message: what is wrong, in whole sentences, numbers included.
        inputs: the worst input found: name of an argument -> its values
            (nested lists, as `numpy` prints them, shortened where long).
        values: what was measured there, by name.
        source: the user's line that is to blame, `None` if not known.
        advice: what to do, one or two sentences.
    """

    check: str
    severity: Severity
    subject: str
    message: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a check measured, whether or not something is wrong.

    Attributes:
        name: snake_case name (`usable_gradient`).
        subject: name of the input or weight, `""` for all.
        value: the number, or a word.
        text: what it means, one sentence.
    """

    name: str
    subject: str
    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A function of one number, for a plot.

    Attributes:
        name: of the input that changes.
        given: what the others are, in words, `""` if there are none.
        x: float64 `[N]`, its values, evenly spaced.
        value: float64 `[N]`, of the function.
        slope: float64 `[N]`, its derivative.
    """

    name: str
    given: str
    x: Any
    value: Any
    slope: Any


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found; a terminal, a notebook and a pull request show it.

    Attributes:
        subject: name of the function, layer, loss or model.
        kind: `loss`, `activation`, `layer`, `model` or `function`.
        domain: name of each input -> what it was tried with, in words.
        findings: worst first.
        measurements: in the order of the checks.
        seconds: how long it took.
        source: where the subject is defined, `None` if not known.
        curves: plots of a scalar function; in notebooks and Markdown only.
    """

    subject: str
    kind: str
    domain: Mapping[str, str]
    findings: Sequence[AuditFinding]
    measurements: Sequence[Measurement]
    seconds: float
    source: Source | None = None
    curves: Sequence[Curve] = ()

    @property
    def worst(self) -> Severity | None:
        """The worst severity of the findings, `None` if there are none."""
        found = {finding.severity for finding in self.findings}
        return next((s for s in reversed(SEVERITIES) if s in found), None)

    def fails(self, fail_on: Severity = "warning") -> bool:
        """Returns whether a finding is as bad as `fail_on`, or worse."""
        worst = self.worst
        return worst is not None and (
            SEVERITIES.index(worst) >= SEVERITIES.index(fail_on)
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, as `gradwatch audit --json` prints it."""
        told = asdict(replace(self, curves=()))
        del told["curves"]
        return {**told, "worst": self.worst}

    def to_markdown(self) -> str:
        """Returns the report as Markdown, for a pull request."""
        from gradwatch.audit.words import markdown

        return markdown(self)

    def print(self) -> None:
        """Prints the report as a table, in colours on a terminal."""
        from rich.console import Console

        from gradwatch.audit.words import printed

        printed(self, Console(highlight=False))

    def __str__(self) -> str:
        """The report as plain text of 88 columns."""
        from gradwatch.audit.words import text

        return text(self)

    def _repr_html_(self) -> str:
        from gradwatch.audit.words import html

        return html(self)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()
