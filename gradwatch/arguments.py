"""The arguments of `GradWatch`: each is checked here, at construction.

Each function returns what it was given, made ready for use, or raises a
`GradWatchError` that says what was expected, what was received, what to do.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NoReturn, TypeVar, get_args

from gradwatch.errors import GradWatchError, expected
from gradwatch.interfaces import Rule, Sink
from gradwatch.policy import OnNonfinite, Policy

__all__ = [
    "Contents",
    "Place",
    "autopsy_seconds",
    "blackbox",
    "budget",
    "every_steps",
    "labels",
    "logdir",
    "name",
    "notify",
    "policy",
    "port",
    "rules",
    "sinks",
    "snapshots",
    "xray_every_steps",
]

Contents = Literal["full", "weights", "off"]
"""What is written of a step that is not finite."""

Place = Literal["memory", "disk"]
"""Where snapshots lie."""

_Part = TypeVar("_Part", Rule, Sink)
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,40}")


def logdir(value: str | Path) -> Path:
    """A folder, or the place of one that can be made."""
    if not isinstance(value, str | os.PathLike):
        _refuse("logdir", "a path", value, "Name a folder.")
    path = Path(value)
    if path.exists() and not path.is_dir():
        _refuse("logdir", "a folder", str(path), "It is a file; name another.")
    return path


def name(value: str | None) -> str | None:
    """The first part of a run id; `None` = the model's name."""
    if value is None or (isinstance(value, str) and _NAME.fullmatch(value)):
        return value
    what = "1 to 40 letters, digits, '.', '_' or '-', not starting with '.'"
    do = "It becomes a folder's name and a Prometheus label."
    _refuse("name", what, value, do)


def labels(value: Mapping[str, str] | None) -> dict[str, str]:
    """The user's own key-value pairs."""
    pairs = {} if value is None else value
    if isinstance(pairs, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in pairs.items()
    ):
        return dict(pairs)
    what = "a mapping of strings to strings"
    _refuse("labels", what, value, "Turn other values into strings.")


def every_steps(value: int) -> int:
    """A cadence, in steps."""
    if type(value) is int and value >= 1:
        return value
    what = "a whole number of steps, at least 1"
    _refuse("every_steps", what, value, "1 records every step.")


def xray_every_steps(value: int) -> int:
    """A cadence, in steps; 0 = no X-rays."""
    if type(value) is int and value >= 0:
        return value
    what = "a whole number of steps, at least 0"
    _refuse("xray_every_steps", what, value, "0 takes no X-rays at all.")


def budget(value: float) -> float:
    """A share of the time, above 0 and at most 1."""
    if isinstance(value, int | float) and 0 < value <= 1:
        return float(value)
    what = "a share above 0 and at most 1"
    do = "0.02 is 2 % of the time; xray_every_steps=0 takes no X-rays."
    _refuse("budget", what, value, do)


def policy(
    on_nonfinite: OnNonfinite,
    max_skips: int,
    max_rollbacks: int,
    rollback_factor: float,
    snapshots: Path | None,
) -> Policy:
    """What happens at a step that is not finite, and how often."""
    names = get_args(OnNonfinite)
    if on_nonfinite not in names:
        known = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        _refuse("on_nonfinite", known, on_nonfinite, "Choose one of these.")
    if type(max_skips) is not int or max_skips < 1:
        what = "a whole number of steps, at least 1"
        do = 'on_nonfinite="stop" skips none; "record" applies all.'
        _refuse("max_skips", what, max_skips, do)
    if type(max_rollbacks) is not int or max_rollbacks < 1:
        what = "a whole number, at least 1"
        do = 'on_nonfinite="stop" never goes back.'
        _refuse("max_rollbacks", what, max_rollbacks, do)
    number = isinstance(rollback_factor, int | float)
    if not (number and 0 < rollback_factor <= 1):
        what = "a factor above 0 and at most 1"
        do = "0.5 halves the learning rate; 1 leaves it."
        _refuse("rollback_factor", what, rollback_factor, do)
    factor = float(rollback_factor)
    return Policy(on_nonfinite, max_skips, max_rollbacks, factor, snapshots)


def snapshots(value: str, folder: Path) -> Path | None:
    """Where snapshots lie: `folder`, or in memory (`None`)."""
    if value in get_args(Place):
        return folder if value == "disk" else None
    do = "'disk' is that of logdir; both hold weights and optimizer twice."
    _refuse("snapshots", "'memory' or 'disk'", value, do)


def blackbox(value: str) -> Contents:
    """What a black box holds."""
    for contents in get_args(Contents):
        if value == contents:
            return contents  # type: ignore[no-any-return]
    do = "With 'weights' no data are written to the disk."
    _refuse("blackbox", "'full', 'weights' or 'off'", value, do)


def autopsy_seconds(value: float) -> float:
    """How long autopsies may take; 0 = none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value < math.inf:
        return float(value)
    what = "a number of seconds, at least 0"
    _refuse("autopsy_seconds", what, value, "0 makes no autopsy.")


def port(value: int | None) -> int | None:
    """A TCP port; 0 = a free one, `None` = no endpoint."""
    if value is None or (type(value) is int and 0 <= value <= 65535):
        return value
    what = "None or a port from 0 to 65535"
    _refuse("metrics_port", what, value, "0 takes a free port.")


def notify(value: Iterable[str]) -> list[str]:
    """Apprise URLs, which are secret: what was received is not shown."""
    single = isinstance(value, str) or not isinstance(value, Iterable)
    urls: list[object] = [value] if single else list(value)
    if not single and all(isinstance(url, str) for url in urls):
        return [str(url) for url in urls]
    types = ", ".join(type(url).__name__ for url in urls)
    received = types if single else f"a list of {types}"
    do = 'For example notify=["json://127.0.0.1:8080/alerts"].'
    what = "a list of Apprise URLs, each a string"
    _refuse("notify", what, received, do)


def rules(values: Iterable[Rule]) -> list[Rule]:
    """What judges the run: instances, not classes and not names."""
    return _parts("rules", values, "begin", "check")


def sinks(values: Iterable[Sink]) -> list[Sink]:
    """Where records go: instances, not classes and not names."""
    return _parts("sinks", values, "open", "write", "close")


def _parts(
    argument: str, values: Iterable[_Part], *methods: str
) -> list[_Part]:
    checked = list(values)
    for part in checked:
        fits = all(callable(getattr(part, m, None)) for m in methods)
        if isinstance(part, type) or not fits or not hasattr(part, "name"):
            what = f"instances with a `name` and {', '.join(methods)}"
            do = f"See `{argument[:-1].title()}` in gradwatch.interfaces."
            _refuse(argument, what, part, do)
    return checked


def _refuse(argument: str, what: str, received: object, do: str) -> NoReturn:
    raise GradWatchError(expected(argument, what, received, do))
