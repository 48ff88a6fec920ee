"""The identity of a run: its id, its directory, what it ran on."""

from __future__ import annotations

import platform
import re
import secrets
import socket
import time
from collections.abc import Mapping
from importlib import metadata

from gradwatch.errors import GradWatchError, expected
from gradwatch.records import Run

__all__ = ["new_run", "validate_labels", "validate_name"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
_PACKAGES = ("gradwatch", "keras", "tensorflow", "tensorflow-cpu", "numpy")


def new_run(name: str, labels: Mapping[str, str]) -> Run:
    """Returns a new identity: `<name>-<time>-<random>` as its id.

    Args:
        name: any text; what an id cannot hold becomes `-`.
        labels: kept as they are.
    """
    start = time.time()
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:40].lstrip(".") or "run"
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(start))
    return Run(
        id=f"{name}-{stamp}-{secrets.token_hex(3)}",
        name=name,
        start=start,
        host=socket.gethostname(),
        versions={"python": platform.python_version(), **_versions()},
        labels=dict(labels),
    )


def validate_name(name: str | None) -> str | None:
    """Returns `name`, or raises if it cannot be part of a run id."""
    if name is None or (
        isinstance(name, str)
        and _NAME.fullmatch(name)
        and not name.startswith(".")
    ):
        return name
    raise GradWatchError(
        expected(
            "name",
            "1 to 40 letters, digits, '.', '_' or '-', not starting with '.'",
            name,
            "It becomes a folder's name and a Prometheus label.",
        )
    )


def validate_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Returns a copy of `labels`, or raises if it is no str -> str mapping."""
    pairs = {} if labels is None else labels
    if isinstance(pairs, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in pairs.items()
    ):
        return dict(pairs)
    raise GradWatchError(
        expected(
            "labels",
            "a mapping of strings to strings",
            labels,
            "Turn other values into strings.",
        )
    )


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
