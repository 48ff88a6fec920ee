"""The in-process endpoint of a run: when it is there, and how long."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gradwatch.metrics import Endpoint, RunCollector, serve_metrics

__all__ = ["Serving"]

_log = logging.getLogger("gradwatch")

_SERVED_AFTER_SECONDS = 30.0


class Serving:
    """Serves a run's metrics while it is watched, and shortly after.

    Args:
        port: see `GradWatch`.
        snapshot: returns the present of the run as plain data.

    Attributes:
        endpoint: what serves them, `None` if nothing does.
    """

    def __init__(
        self, port: int | None, snapshot: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.endpoint: Endpoint | None = None
        self._port = port
        self._snapshot = snapshot
        self._closing: threading.Timer | None = None

    def open(self) -> None:
        """A fit begins."""
        if self._closing is not None:
            self._closing.cancel()
        if self._port is None or self.endpoint is not None:
            return
        collector = RunCollector(lambda: [self._snapshot()])
        try:
            self.endpoint = serve_metrics(collector, self._port)
        except OSError as error:
            _log.warning(
                "Port %d cannot be served, training goes on without "
                "metrics in this process: %s",
                self._port,
                error,
            )
            return
        if self._port == 0:  # otherwise the user knows it
            sys.stderr.write(f"gradwatch serves {self.endpoint.url}\n")

    def close_later(self) -> None:
        """A fit is over; the last numbers can still be fetched for 30 s."""
        if self.endpoint is None:
            return
        self._closing = threading.Timer(_SERVED_AFTER_SECONDS, self._close)
        self._closing.daemon = True
        self._closing.start()

    def _close(self) -> None:
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None
