"""What dashboards ask Prometheus about the runs that are chosen.

Metrics and labels are looked up in the catalogue. What is drawn is finite: one
NaN would be drawn as 0, or a line would bridge it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from gradwatch.metrics import HEALTHS
from gradwatch.monitoring.alert import finite, greatest
from gradwatch.monitoring.thresholds import Settings
from gradwatch.records import Phase

__all__ = ["BY", "CODES", "RATE", "Shown", "positive"]

BY = "job, run"
"""What names a run on dashboards: its service may move to another instance."""

RATE = "$__rate_interval"
"""Grafana's own: long enough to hold several scrapes."""

CODES = {
    name: code
    for code, name in enumerate((*get_args(Phase), *HEALTHS[1:]), start=1)
}
"""State or health -> the number that stands for it in a chart."""


def positive(selector: str) -> str:
    """Returns a selector without what is not finite or not above 0."""
    return f"({selector} > 0 < +Inf)"


@dataclass(frozen=True, slots=True)
class Shown:
    """The runs that a dashboard shows.

    Attributes:
        settings: of the build.
        run: matches their label `run`: `$run`, or `=~$runs` of several.
    """

    settings: Settings
    run: str

    @property
    def _chosen(self) -> Settings:
        return replace(self.settings, job="=~$job")

    def series(self, name: str, **labels: str) -> str:
        """Returns the selector of a family, as `Settings.series`."""
        return self._chosen.series(name, run=self.run, **labels)

    def service(self, name: str, **labels: str) -> str:
        """Returns the selector of a family that is about no run."""
        return self._chosen.series(name, **labels)

    def matchers(self, **labels: str) -> str:
        """Returns label matchers of the job, for metrics of Prometheus."""
        return self._chosen.matchers(**labels)

    def recorded(self, name: str) -> str:
        """Returns the selector of a recording rule's series."""
        return f"{name}{{{self._chosen.matchers(run=self.run)}}}"

    def newest(self, name: str, **labels: str) -> str:
        """Returns one series for each run."""
        return greatest(self.series(name, **labels), BY)

    def finite(self, name: str, **labels: str) -> str:
        """Returns a family's series where they are finite."""
        return finite(self.series(name, **labels))

    def positive(self, name: str, **labels: str) -> str:
        """Returns a family's series where a log scale can show them."""
        return positive(self.series(name, **labels))

    def rate(self, name: str, by: str = BY, **labels: str) -> str:
        """Returns how fast a counter grows, per second.

        The greatest of the ranks: all of them do the same steps.
        """
        return greatest(f"rate({self.series(name, **labels)}[{RATE}])", by)

    def increase(self, name: str, by: str, **labels: str) -> str:
        """Returns by how much a counter has grown, summed."""
        grown = f"increase({self.series(name, **labels)}[{RATE}])"
        return f"sum by ({by}) ({grown})"

    def going(self) -> str:
        """Returns what keeps the runs that are not at an end."""
        ended = self.newest("run_end_timestamp_seconds")
        return f"and on ({BY}) {ended} == 0"

    def state(self) -> str:
        """Returns the code of each run's state, or of its health if bad."""
        told = [
            f"{self.series('run_state', state=state)} * {CODES[state]}"
            for state in get_args(Phase)
        ]
        seen = [
            f"{self.series('run_health', health=health)} * {CODES[health]}"
            for health in HEALTHS[1:]
        ]
        return greatest(" or ".join([*told, *seen]), BY)

    def progress(self) -> str:
        """Returns the share of the planned steps that are done."""
        planned = self.newest("planned_steps")
        return f"{self.newest('steps_total')} / ({planned} > 0)"

    def left(self) -> str:
        """Returns the seconds left, if pauses go on as they did.

        As the service's pages have it.
        """
        took = (
            f"({self.newest('last_step_timestamp_seconds')}"
            f" - {self.newest('run_start_timestamp_seconds')})"
        )
        done = f"({self.newest('step_duration_seconds_count')} >= 9)"
        planned, steps = (
            self.newest("planned_steps"),
            self.newest("steps_total"),
        )
        return (
            f"{took} / ({done} + 1) * ({planned} - {steps} > 0) {self.going()}"
        )

    def age(self, name: str) -> str:
        """Returns the seconds since a moment, of runs that go on."""
        return f"time() - ({self.newest(name)} > 0) {self.going()}"

    def since(self, name: str, by: str, **labels: str) -> str:
        """Returns the newest moment of each, if it is in the range shown."""
        found = f"max_over_time({self.series(name, **labels)}[$__range])"
        return f"{greatest(found, by)} > time() - $__range_s"

    def findings(self, by: str) -> str:
        """Returns when findings were said: Unix time in milliseconds.

        The rule stands there three times, for what it means and what to do.
        """
        said = self.since("finding_last_timestamp_seconds", by)
        for column in ("meaning", "advice"):
            said = f'label_replace({said}, "{column}", "$1", "rule", "(.*)")'
        return f"{said} * 1000"

    def leaves(self) -> str:
        """Returns the components that have no parts: they add up to the loss.

        Parts are called `parent/name`.
        """
        parts = f"({self.finite('loss_component')})"
        named = (
            f'label_replace({parts}, "parent", "$1", "component", "(.+)/.+")'
        )
        parents = greatest(named, f"{BY}, parent")
        again = f'label_replace({parents}, "component", "$1", "parent", "(.*)")'
        return f"{parts} unless on ({BY}, component) {again}"
