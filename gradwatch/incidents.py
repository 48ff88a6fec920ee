"""What is kept of steps that were not finite: black boxes, and autopsies."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradwatch.arguments import Contents
from gradwatch.autopsy.boxes import examine_within
from gradwatch.blackbox import write
from gradwatch.capture import Capture
from gradwatch.policy import OnNonfinite
from gradwatch.records import Autopsy, Finding, Run

__all__ = ["Incidents"]

_log = logging.getLogger("gradwatch")
_BOXES = 5  # of up to 512 MB, in a run that skips


class Incidents:
    """The bad steps of one run.

    Args:
        run: its identity.
        path: its directory.
        on_nonfinite: what a bad step means.
        contents: what is kept of one.
        seconds: how long the autopsies of a fit may take; 0 = none.
    """

    def __init__(
        self,
        run: Run,
        path: Path,
        on_nonfinite: OnNonfinite,
        contents: Contents,
        seconds: float,
    ) -> None:
        self._run = run
        self._path = path
        self._on_nonfinite = on_nonfinite
        self._contents = contents
        self._seconds = seconds
        self._boxes = 0
        self._unexplained: list[Path] = []

    @property
    def keeps_batch(self) -> bool:
        """Whether the batch of a bad step is kept."""
        return self._contents == "full"

    @property
    def wanted(self) -> bool:
        """Whether there is to be one more black box."""
        return self._contents != "off" and self._boxes < _BOXES

    def keep(
        self, capture: Capture, step: int, finding: Finding | None
    ) -> None:
        """Writes a black box; one that cannot be written is logged."""
        self._boxes += 1
        try:
            folder = self._write(capture, f"step-{step}", step, finding)
        except Exception as error:
            _log.warning("Step %d has no black box: %r", step, error)
        else:
            self._unexplained.append(folder)

    def snapshot(self, capture: Capture) -> Path:
        """Writes the model as it is now; see `GradWatch.snapshot`."""
        return self._write(capture, f"snapshot-{capture.count}", None, None)

    def autopsies(self, model: Any) -> Iterator[Autopsy]:
        """Explains the bad steps that were kept since the last call.

        Args:
            model: the live `keras.Model`; it stays as it is.
        """
        folders, self._unexplained = self._unexplained, []
        if self._seconds and self.keeps_batch and folders:
            yield from examine_within(folders, model, self._seconds)

    def _write(
        self,
        capture: Capture,
        name: str,
        step: int | None,
        finding: Finding | None,
    ) -> Path:
        path = self._path / "blackbox" / name
        manifest, arrays = capture.evidence(step)
        manifest |= {
            "run": self._run.id,
            "time": time.time(),
            "versions": self._run.versions,
            "on_nonfinite": self._on_nonfinite,
            "finding": finding,
        }
        write(path, arrays, manifest)
        return path
