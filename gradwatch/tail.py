"""The findings of a run, as they come: what `gradwatch findings` follows.

Reads what the run directory holds; the trainer never knows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from gradwatch.errors import GradWatchError
from gradwatch.records import Finding
from gradwatch.runstate import ENDED
from gradwatch.service.rows import rows
from gradwatch.service.runs import Runs
from gradwatch.sinks.findings import read_findings
from gradwatch.sinks.state import check

__all__ = ["tail"]

_LATE = 5.0  # seconds that sinks may need once the run has said its last


def tail(run_dir: Path, pause: float = 0.5) -> Iterator[Finding]:
    """Yields the findings of a run until it ends, in the order they come.

    One that an autopsy explains comes a second time, as it is then.

    Args:
        run_dir: the run directory.
        pause: seconds between two looks.

    Raises:
        GradWatchError: the run is lost: it gives no sign of life any more.
    """
    runs, told = Runs([run_dir]), list[Finding]()
    ended = math.inf
    while True:
        check(run_dir)
        now = rows(runs.look(), time.time())
        found = read_findings(run_dir)
        for i, finding in enumerate(found):
            if told[i : i + 1] != [finding]:
                yield finding
        told = found
        if now and now[0]["health"] == "lost":
            age = now[0]["beat_age_seconds"]
            raise GradWatchError(
                f"The run is lost: its last sign of life came {age:.0f} s ago."
            )
        if now and now[0]["state"] in ENDED:
            # Findings and state are written by two threads, in any order.
            complete = len(found) >= sum(now[0]["findings"].values())
            if time.monotonic() > ended + (0 if complete else _LATE):
                return
            ended = min(ended, time.monotonic())
        time.sleep(pause)
