"""The identity of a run: its id, its directory, what it ran on."""

from __future__ import annotations

import platform
import re
import secrets
import socket
import time
from collections.abc import Mapping
from importlib import metadata

from gradwatch.records import Run

__all__ = ["new_run"]

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


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
