"""Connections that send nothing are closed, so that they keep nobody out.

uvicorn closes an idle connection after a request, and waits for ever before
the first one. Read in uvicorn 0.54.0, protocols/http/h11_impl.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Impatient"]

_IDLE = 10.0  # seconds for the headers of a request, or for nothing at all


class Impatient(H11Protocol):
    """HTTP/1.1 that waits for a request no longer than ten seconds."""

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """asyncio: somebody has connected."""
        super().connection_made(transport)
        self._look_again(self.cycle)

    def _look_again(self, before: Any) -> None:
        self.loop.call_later(_IDLE, self._close_if_idle, before)

    def _close_if_idle(self, before: Any) -> None:
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        idle = cycle is None or cycle.response_complete
        if idle and cycle is before:
            self.transport.close()
        else:
            self._look_again(cycle)
