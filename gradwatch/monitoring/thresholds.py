"""The numbers in the alert rules, and the settings of a build.

Durations can be scaled as a whole, so that a test need not wait for hours; what
the trainer itself does at its own pace (a sign of life every 5 s) sets a floor.
Imports families only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gradwatch.families import families

__all__ = ["THRESHOLDS", "Settings", "Threshold", "duration", "parse"]

_FAMILIES = families()


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that an alert rule compares with.

    Attributes:
        name: as in `--threshold NAME=VALUE`; a duration ends with `_seconds`.
        default: its value.
        meaning: one sentence.
        least: what scaling never makes it smaller than.
    """

    name: str
    default: float
    meaning: str
    least: float = 0.0


THRESHOLDS: Mapping[str, Threshold] = {
    t.name: t
    for t in (
        Threshold(
            "finding_seconds",
            3600,
            "How long a finding is news: its alert fires for so long.",
            20,
        ),
        Threshold(
            "nonfinite_seconds",
            300,
            "The same for a step that was not finite and made no finding.",
            20,
        ),
        Threshold(
            "lost_seconds",
            45,
            "A run without a sign of life for longer is lost.",
            15,
        ),
        Threshold(
            "forget_seconds",
            86_400,
            "A run that has been lost for longer is no alert any more.",
            60,
        ),
        Threshold(
            "stalled_run_seconds",
            300,
            "A run that trains without a new step for longer is stalled.",
            15,
        ),
        Threshold(
            "stalled_run_steps",
            20,
            "And it must be longer than so many steps usually take.",
        ),
        Threshold(
            "first_step_seconds",
            1800,
            "How long the first step may take, compilation among it.",
            60,
        ),
        Threshold(
            "stalled_loss_seconds",
            1800,
            "The loss of the second half of so long is compared with that of "
            "the first.",
            20,
        ),
        Threshold(
            "stalled_loss_errors",
            2,
            "Standard errors by which it must be lower to count as falling.",
        ),
        Threshold(
            "stalled_loss_gain",
            0.05,
            "A loss that has gone this share of its way down is not stalled.",
        ),
        Threshold(
            "stalled_loss_plan",
            0.75,
            "Share of the planned steps that must be over (of 5,000 if none "
            "are planned, of 10,000 at most).",
        ),
        Threshold(
            "diverging_seconds",
            1800,
            "The loss is compared with the highest of so long before.",
            20,
        ),
        Threshold(
            "diverging_factor",
            3,
            "A loss above so many times that and the first one diverges.",
        ),
        Threshold(
            "skipped_ratio",
            0.95,
            "Share of the updates that loss scaling may drop.",
        ),
        Threshold(
            "loss_scale", 1, "A loss scale that stays below has collapsed."
        ),
        Threshold(
            "step_time_factor",
            2,
            "Steps that take so many times as long as before are slow.",
        ),
        Threshold(
            "step_time_seconds",
            21_600,
            "As before: the mean of so long.",
            60,
        ),
        Threshold(
            "telemetry_seconds",
            600,
            "How long losing readings is news.",
            20,
        ),
        Threshold(
            "disk_free_bytes",
            50_000_000,
            "Bytes that must be free where the runs are.",
        ),
        Threshold(
            "exporter_seconds",
            120,
            "How long the service may be down, for a restart, say.",
            3,
        ),
    )
}
"""All thresholds by name, in the order in which they are shown."""


@dataclass(frozen=True)
class Settings:
    """What a build can be asked for.

    Attributes:
        values: name of a threshold -> value, where it is not the default.
        time_scale: what all durations are multiplied by.
        job: the Prometheus job that scrapes the service; may bring its own
            operator, see `series`.
        runbook: where RUNBOOK.md is, as a URL.
        grafana: root of Grafana's URL.
        webhook: the URL that gets alerts.
        watchdog: the URL that expects a sign of life.
        service: root of the URL of the service's pages.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    time_scale: float = 1.0
    job: str = "gradwatch"
    runbook: str = "dashboards/RUNBOOK.md"
    grafana: str = "http://127.0.0.1:3000"
    webhook: str = "http://127.0.0.1:9754/alerts"
    watchdog: str = "http://127.0.0.1:9754/watchdog"
    service: str = "http://127.0.0.1:9753"

    @property
    def tested(self) -> bool:
        """Whether these are the numbers that the unit tests know."""
        return self == Settings(
            webhook=self.webhook, watchdog=self.watchdog, service=self.service
        )

    def value(self, name: str) -> float:
        """Returns a threshold, scaled if it is a duration."""
        known = THRESHOLDS[name]
        value = self.values.get(name, known.default)
        if not name.endswith("_seconds") or self.time_scale == 1:
            return value
        return max(value * self.time_scale, known.least)

    def number(self, name: str) -> str:
        """Returns a threshold as PromQL writes a number."""
        return f"{self.value(name):.15g}"

    def scaled(self, seconds: float, least: float = 0.0) -> float:
        """Returns a duration that is no threshold, in seconds."""
        if self.time_scale == 1:
            return seconds
        return max(seconds * self.time_scale, least)

    def range(self, seconds: float) -> str:
        """Returns a scaled range, long enough to hold several samples."""
        return duration(self.scaled(seconds, 20))

    def series(self, name: str, **labels: str) -> str:
        """Returns the selector of a family's series.

        Args:
            name: short name of a family, a histogram's with its suffix.
            labels: label -> value; a value that begins with `=~`, `!=` or `!~`
                brings its own operator.

        Raises:
            KeyError: the catalogue has no such family or label.
        """
        short = name
        for suffix in ("_sum", "_count", "_bucket"):
            if name.removesuffix(suffix) in _FAMILIES:
                short = name.removesuffix(suffix)
        family = _FAMILIES[short]
        if unknown := set(labels) - set(family.labels):
            raise KeyError(f"{family.name} has no label {unknown}")
        full = family.name + name.removeprefix(short)
        return f"{full}{{{self.matchers(**labels)}}}"

    def matchers(self, **labels: str) -> str:
        """Returns label matchers, the job's first."""
        found = []
        for label, value in {"job": self.job, **labels}.items():
            given = value[:2] in ("=~", "!=", "!~")
            operator, text = (value[:2], value[2:]) if given else ("=", value)
            found.append(f'{label}{operator}"{text}"')
        return ",".join(found)


def duration(seconds: float) -> str:
    """Returns a duration as Prometheus and Alertmanager write it: `30m`."""
    milliseconds = round(seconds * 1000)
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and not milliseconds % length:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def parse(texts: Iterable[str]) -> dict[str, float]:
    """Returns name -> value of thresholds that were given as `NAME=VALUE`.

    Raises:
        ValueError: no such threshold, or no positive number.
    """
    values = {}
    for text in texts:
        name, _, given = text.partition("=")
        if name not in THRESHOLDS:
            raise ValueError(
                f"Expected one of {', '.join(THRESHOLDS)}. Received: {text}."
            )
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ValueError(
                f"Expected {name}=NUMBER above 0. Received: {text}."
            )
        values[name] = value
    return values
