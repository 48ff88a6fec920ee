"""Findings as log lines of the logger `gradwatch`, and autopsies.

Standard library only.
"""

from __future__ import annotations

import logging
from pathlib import Path

from gradwatch.records import Autopsy, Finding, Record, Run, Schema

__all__ = ["LogSink"]

_LOGGER = logging.getLogger("gradwatch")
_LEVELS = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "critical": logging.WARNING,
}


class LogSink:
    """Logs one INFO line a run, one line a finding and one an autopsy.

    Autopsies and findings are WARNING, or INFO where their severity is `info`.
    Never ERROR: an error line says that gradwatch itself failed.

    Args:
        path: the run directory to name in the run's line; without it the line
            has the run's id, which is the directory's name.
    """

    name = "log"

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = path
        self._run = ""

    def open(self, run: Run, schema: Schema) -> None:
        """Logs where the run is recorded, once a run."""
        if run.id != self._run:
            self._run = run.id
            _LOGGER.info("Watching this run: %s", self._path or run.id)

    def write(self, record: Record) -> None:
        """Logs a Finding or an Autopsy; other records are not for this sink."""
        if isinstance(record, Autopsy):
            said = f"{record.headline()} {record.advice}".split()
            _LOGGER.warning("Step %d: %s", record.step, " ".join(said))
        if not isinstance(record, Finding):
            return
        where = f" {record.subject}" if record.subject else ""
        said = f"{record.message} {record.advice}".split()
        _LOGGER.log(
            _LEVELS[record.severity],
            "%s (%s)%s at step %d: %s",
            record.rule,
            record.severity,
            where,
            record.first_step,
            " ".join(said),
        )

    def close(self) -> None:
        """Does nothing: the logger is not ours to close."""
