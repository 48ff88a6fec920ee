"""What each alert is tested with, in the file that promtool reads.

Each fault happens to a run that learns: the alert must be silent just before
its time and fire at it, and nothing else may fire. The same with NaN in the
series, with a restart of the service, and with a run that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from gradwatch.monitoring.world import INTERVAL, STEPS, World
from gradwatch.rules import default_rules

__all__ = ["Case", "cases"]

_AT = 300  # seconds before something happens
_LATE = 1800  # where what was before counts


@dataclass(frozen=True)
class Case:
    """A fault and the alert that it raises.

    Attributes:
        name: in a few words.
        alert: its name.
        happens: does it to a World.
        fires: second at which the alert fires first.
        labels: what the alert has beside its severity.
        shown: templates in the alert's text -> what they show.
        going: whether the alert is for runs that go on, so that one that has
            ended before is silent.
        of: labels that say what it is about; without `run`, the service.
    """

    name: str
    alert: str
    happens: Callable[[World], None]
    fires: float
    labels: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    going: bool = False
    of: tuple[str, ...] = ("job", "instance", "run")


def cases() -> Iterator[Case]:
    """Yields at least one case for each alert."""
    for rule in default_rules():
        if rule.severity == "critical":
            yield _finding(rule.name, f"Gradwatch{type(rule).__name__}")
    yield from _LOSSES
    yield from _RUNS
    yield from _SERVICE


def _say(world: World, rule: str, severity: str, subject: str = "") -> None:
    """A rule finds something."""
    labels = {"rule": rule, "severity": severity, "subject": subject}
    world.set("finding_last_timestamp_seconds", labels, _AT, _AT)


def _find(rule: str, world: World) -> None:
    """A rule finds something critical, which may end the run."""
    _say(world, rule, "critical", "dense/kernel")
    if rule.startswith("nonfinite"):
        world.set("last_nonfinite_timestamp_seconds", {}, _AT, _AT)
    if rule.startswith(("nonfinite", "too_many_skips", "rolled_back")):
        world.end("failed", _AT + INTERVAL)


def _finding(rule: str, alert: str) -> Case:
    subject = {"printf": " Look at dense/kernel first."}
    return Case(rule, alert, partial(_find, rule), _AT, shown=subject)


def _learn_nothing(world: World, known: bool = True) -> None:
    for name, labels in (
        ("loss_window_mean", {"split": "train"}),
        ("loss_component", {"component": "mse"}),
    ):
        world.set(name, labels, 9.9)
    if not known:
        for name in ("component_constant_loss", "component_lowest_loss"):
            world.set(name, {"component": "mse"}, None)


def _warn(rule: str, world: World) -> None:
    _say(world, rule, "warning")


def _diverge(world: World) -> None:
    world.set("loss_window_mean", {"split": "train"}, 100, _AT)


def _overflow(world: World) -> None:
    """Loss scaling drops 296 of 300 updates."""
    since = _AT // INTERVAL
    world.set(
        "skipped_steps_total",
        {"reason": "loss_scale"},
        lambda i: 2960.0 * (i - since),
        _AT,
    )


def _lose(counter: str, world: World) -> None:
    world.set(counter, {"sink": "tensorboard"}, 1, _AT)


def _fill(world: World) -> None:
    """No sink can write, which is told as what it is."""
    full = {"logdir": "runs"}
    world.set("logdir_available_bytes", full, 1_024_000, _AT)
    _lose("sink_errors_total", world)


def _nonfinite(world: World) -> None:
    world.set("last_nonfinite_timestamp_seconds", {}, _AT, _AT)


def _hang(world: World) -> None:
    world.freeze(_AT, *STEPS)
    world.stall(_AT + 310)  # as the service says, with its next look


def _die(world: World) -> None:
    world.freeze(_AT, *STEPS)
    world.freeze(_AT, "heartbeat_timestamp_seconds")


def _never_step(world: World) -> None:
    for name in STEPS:
        world.set(name, {"rank": "0"}, 0)
    world.stall(1800)


def _slow_down(world: World) -> None:
    """Steps take 40 instead of 10 ms."""
    since = _LATE // INTERVAL
    world.set(
        "step_duration_seconds_count",
        {"rank": "0"},
        lambda i: 3000.0 * since + 750.0 * (i - since),
        _LATE,
    )


_LOSSES = (
    Case(
        "skipped_updates by counters",
        "GradwatchSkippedUpdates",
        _overflow,
        _AT + 600,
        shown={"printf": ""},
        going=True,
    ),
    Case(
        "stalled_loss by its finding",
        "GradwatchStalledLoss",
        partial(_warn, "stalled_loss"),
        _AT + 300,
        going=True,
    ),
    Case(
        "stalled_loss against the constant answer",
        "GradwatchStalledLoss",
        _learn_nothing,
        1200,
        going=True,
    ),
    Case(
        "stalled_loss against the first loss",
        "GradwatchStalledLoss",
        partial(_learn_nothing, known=False),
        1200,
        going=True,
    ),
    Case(
        "diverging_loss by its mean",
        "GradwatchDivergingLoss",
        _diverge,
        _AT + 300,
        shown={"printf": ""},
        going=True,
    ),
    Case(
        "a warning",
        "GradwatchWarning",
        partial(_warn, "dead_units"),
        _AT,
        {"rule": "dead_units"},
        shown={"printf": ""},
        going=True,
    ),
)
_RUNS = (
    Case(
        "a sink's queue is full",
        "GradwatchLostReadings",
        partial(_lose, "events_dropped_total"),
        _AT,
    ),
    Case(
        "a sink fails",
        "GradwatchLostReadings",
        partial(_lose, "sink_errors_total"),
        _AT,
    ),
    Case("NaN without a rule", "GradwatchNonfiniteStep", _nonfinite, _AT),
    Case(
        "an exception",
        "GradwatchRunFailed",
        lambda world: world.end("failed", _AT),
        _AT,
    ),
    Case(
        "kill -9",
        "GradwatchRunLost",
        _die,
        _AT + 60,
        shown={"humanizeDuration": "59s"},
        going=True,
    ),
    Case(
        "a step that does not end",
        "GradwatchRunStalled",
        _hang,
        _AT + 450,
        shown={"humanizeDuration": "7m 29s"},
        going=True,
    ),
    Case(
        "a first step that does not end",
        "GradwatchRunStalled",
        _never_step,
        1950,
        shown={"humanizeDuration": "32m 29s"},
        going=True,
    ),
    Case(
        "steps four times as long",
        "GradwatchStepTimeRegression",
        _slow_down,
        _LATE + 210 + 900,
        {"rank": "0"},
        shown={"humanizeDuration": "40ms"},
        going=True,
    ),
    Case(
        "a loss scale below 1",
        "GradwatchLossScaleCollapsed",
        lambda world: world.set("loss_scale", {}, 0.5, _AT),
        _AT + 300,
        shown={"$value": "0.5"},
        going=True,
    ),
    Case(
        "too many variables",
        "GradwatchSeriesLimitHit",
        lambda world: world.set(
            "series_dropped_total", {"reason": "subjects"}, 3, _AT
        ),
        _AT + 300,
        shown={"$value": "3"},
    ),
)
_SERVICE = (
    Case(
        "the service is dead",
        "GradwatchExporterDown",
        lambda world: world.hide(_AT),
        _AT + 120,
        of=("job", "instance"),
    ),
    Case(
        "the service is no target",
        "GradwatchExporterAbsent",
        lambda world: world.remove(_AT),
        _AT + 300,
        of=("job",),
    ),
    Case(
        "a full disk",
        "GradwatchDiskFull",
        _fill,
        _AT,
        {"logdir": "runs"},
        shown={"humanize1024": "1000ki"},
        of=("job", "instance"),
    ),
)
