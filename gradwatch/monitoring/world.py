"""A made world for unit tests of rules: one service, one run, its series.

Values are lists, one entry every 30 seconds from time 0; `None` = the series is
not there then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from gradwatch.families import families

__all__ = ["INTERVAL", "LABELS", "STEPS", "World", "written"]

INTERVAL = 30
"""Seconds between two samples, and between two evaluations."""

LABELS = {"job": "gradwatch", "instance": "service:9753", "run": "digits-1"}
"""Of all series that have them."""

STEPS = (
    "last_step_timestamp_seconds",
    "steps_total",
    "step_duration_seconds_sum",
    "step_duration_seconds_count",
)
"""Families that stand still while no step ends."""

Values = list[float | None]

_FAMILIES = families()
_RETENTION = 900 // INTERVAL  # samples for which an ended run is still there


class World:
    """A run that learns for some hours, and what may happen to it.

    Args:
        hours: how long.

    Attributes:
        series: series, as Prometheus writes it -> values.
    """

    def __init__(self, hours: float) -> None:
        self.length = int(hours * 3600) // INTERVAL + 1
        self.series: dict[str, Values] = {}
        self.up = f"up{_braced(LABELS, ('job', 'instance'))}"
        self.series[self.up] = [1.0] * self.length
        for name, start, slope, labels in _HEALTHY:
            values = [start + slope * i for i in range(self.length)]
            self.series[self.key(name, **labels)] = [*values]

    def key(self, name: str, **labels: str) -> str:
        """Returns a series of the catalogue.

        Raises:
            KeyError: it has no such family, or other labels.
        """
        short = name.removesuffix("_sum").removesuffix("_count")
        family = _FAMILIES[short if short in _FAMILIES else name]
        known = {**LABELS, **labels}
        full = family.name + name.removeprefix(short)
        return full + _braced(known, ("job", "instance", *family.labels))

    def set(
        self,
        name: str,
        labels: Mapping[str, str],
        value: float | Callable[[int], float | None] | None,
        since: float = 0,
        until: float = math.inf,
    ) -> None:
        """Sets the values of a series from one second up to another."""
        values = self.series.setdefault(
            self.key(name, **labels), [None] * self.length
        )
        for i in self._between(since, until):
            values[i] = value(i) if callable(value) else value

    def freeze(self, since: float, *names: str) -> None:
        """Leaves all series of some families as they are from then on."""
        first = int(since) // INTERVAL
        for key, values in self.series.items():
            if key.partition("{")[0].removeprefix("gradwatch_") in names:
                values[first + 1 :] = [values[first]] * len(values[first + 1 :])

    def stall(self, since: float) -> None:
        """Has the service say that a step hangs."""
        for health, value in (("ok", 0), ("stalled", 1)):
            self.set("run_health", {"health": health}, value, since)

    def end(self, state: str, at: float) -> None:
        """Ends the run: its last words stay for 15 minutes."""
        first = int(at) // INTERVAL
        for key, values in self.series.items():
            if "run=" in key:
                rest = len(values[first + 1 :])
                kept = [values[first]] * min(_RETENTION, rest)
                values[first + 1 :] = kept + [None] * (rest - len(kept))
        last = (first + _RETENTION + 1) * INTERVAL
        self.set("run_state", {"state": "running"}, 0, at, last)
        self.set("run_state", {"state": state}, 1, at, last)
        self.set("run_end_timestamp_seconds", {}, at, at, last)

    def hide(self, since: float, until: float = math.inf) -> None:
        """Takes the service away: Prometheus sees that it is down."""
        gone = self._between(since, until)
        for key, values in self.series.items():
            for i in gone:
                values[i] = 0.0 if key == self.up else None

    def remove(self, since: float) -> None:
        """Takes the service out of Prometheus' configuration."""
        for values in self.series.values():
            for i in self._between(since, math.inf):
                values[i] = None

    def poison(self, since: float, until: float) -> None:
        """Makes losses and norms NaN for good, and means once."""
        for name in ("loss", "gradient_norm", "loss_component"):
            self._poison(name, since, math.inf)
        for name in ("loss_window_mean", "loss_window_noise"):
            self._poison(name, until - INTERVAL, until)

    def _poison(self, name: str, since: float, until: float) -> None:
        for key, values in self.series.items():
            if key.partition("{")[0] == f"gradwatch_{name}":
                for i in self._between(since, until):
                    values[i] = math.nan if values[i] is not None else None

    def _between(self, since: float, until: float) -> range:
        last = self.length
        if until < math.inf:
            last = min(last, math.ceil(until / INTERVAL))
        return range(math.ceil(since / INTERVAL), last)


def written(values: Values) -> str:
    """Returns values as promtool reads them: `1+2x3` is 1, 3, 5, 7."""
    return " ".join(_runs(values))


def _runs(values: Values) -> Iterator[str]:
    """Yields the arithmetic sequences that they consist of."""
    i = 0
    while i < len(values):
        first, j = values[i], i + 1
        if first is None:
            while j < len(values) and values[j] is None:
                j += 1
            yield from ["stale"] if i else []
            if count := j - i - bool(i):
                yield f"_x{count}"
        elif not math.isfinite(first):
            yield "NaN"
        else:
            step = _step(first, values[j] if j < len(values) else None)
            while j < len(values) and _follows(values[j], first, step, j - i):
                j += 1
            more = f"{step:+.12g}x{j - i - 1}" if j - i > 1 else ""
            yield f"{first:.12g}{more}"
        i = j


def _step(first: float, second: float | None) -> float:
    return 0.0 if second is None else float(f"{second - first:.12g}")


def _follows(
    value: float | None, first: float, step: float, count: int
) -> bool:
    if value is None or not math.isfinite(value):
        return False
    return math.isclose(value, first + step * count, rel_tol=1e-9, abs_tol=1e-9)


def _braced(labels: dict[str, str], names: tuple[str, ...]) -> str:
    """Returns labels in braces.

    Raises:
        KeyError: one of `names` is not given.
    """
    listed = ",".join(f'{name}="{labels[name]}"' for name in sorted(names))
    return f"{{{listed}}}"


_RANK = {"rank": "0"}
_TRAIN = {"split": "train"}
_MSE = {"component": "mse"}

_HEALTHY: tuple[tuple[str, float, float, dict[str, str]], ...] = (
    ("logdir_available_bytes", 1e12, 0, {"logdir": "runs"}),
    ("run_state", 1, 0, {"state": "running"}),
    ("run_state", 0, 0, {"state": "finished"}),
    ("run_state", 0, 0, {"state": "failed"}),
    ("run_health", 1, 0, {"health": "ok"}),
    ("run_start_timestamp_seconds", 1, 0, {}),
    ("run_end_timestamp_seconds", 0, 0, {}),
    ("heartbeat_timestamp_seconds", 1, INTERVAL, _RANK),
    ("last_step_timestamp_seconds", 1, INTERVAL, _RANK),
    ("steps_total", 0, 3000, _RANK),
    ("planned_steps", 0, 0, {}),
    ("step_duration_seconds_sum", 0, INTERVAL, _RANK),
    ("step_duration_seconds_count", 0, 3000, _RANK),
    ("loss", 10, -0.01, _TRAIN),
    ("loss_component", 10, -0.01, _MSE),
    ("component_constant_loss", 10, 0, _MSE),
    ("component_lowest_loss", 0, 0, _MSE),
    ("examples", 32, 0, {}),
    ("loss_window_mean", 10, -0.01, _TRAIN),
    ("loss_window_noise", 0.1, 0, _TRAIN),
    ("loss_window_first", 10, 0, _TRAIN),
    ("gradient_norm", 2, 0, {}),
    ("loss_scale", 32_768, 0, {}),
    ("last_nonfinite_timestamp_seconds", 0, 0, {}),
    ("skipped_steps_total", 0, 0, {"reason": "loss_scale"}),
    ("events_dropped_total", 0, 0, {"sink": "tensorboard"}),
    ("sink_errors_total", 0, 0, {"sink": "tensorboard"}),
    ("series_dropped_total", 0, 0, {"reason": "subjects"}),
)
"""Family, first value, growth from sample to sample, further labels."""
