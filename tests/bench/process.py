"""Processes: measure in a fresh one, on some cores, and ask it how it is.

Linux only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

__all__ = ["alone", "status"]


def alone(function: Callable[..., Any], *arguments: Any, cores: int = 0) -> Any:
    """Returns `function(*arguments)`, called in a fresh process.

    Args:
        function: of a module's top level.
        *arguments: can be pickled.
        cores: pin the process to the first of this one's; 0 = to all of them.
            It inherits them, because TensorFlow and BLAS size their thread
            pools by them when they are loaded.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[: cores or None])
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.sched_setaffinity(0, allowed)


def status(name: str) -> int:
    """Returns a figure of this process: `VmRSS` in KiB, `Threads`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return int(found[name].split()[0])
