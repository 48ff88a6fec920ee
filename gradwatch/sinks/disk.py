"""The sinks that every run has: what the run directory holds, and the log."""

from __future__ import annotations

import logging
from pathlib import Path

from gradwatch.interfaces import Sink
from gradwatch.runstate import RunState
from gradwatch.sinks.findings import FindingsSink
from gradwatch.sinks.log import LogSink
from gradwatch.sinks.state import StateSink
from gradwatch.sinks.tensorboard import TensorBoardSink

__all__ = ["disk_sinks"]

_log = logging.getLogger("gradwatch")


def disk_sinks(path: Path, state: RunState, every_steps: int) -> list[Sink]:
    """Makes the run directory and returns the sinks that write to it.

    Args:
        path: the run directory; where it cannot be made, only the log is left.
        state: what `state.json` shows.
        every_steps: cadence of the recorded readings.
    """
    log = LogSink(path)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        _log.warning(
            "Training goes on, but nothing is recorded: the run directory "
            "%s cannot be made (%s).",
            path,
            error.strerror,
        )
        return [log]
    return [
        TensorBoardSink(path, every_steps=every_steps),
        StateSink(path, state),
        FindingsSink(path),
        log,
    ]
