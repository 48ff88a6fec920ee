"""The metrics page: put together once for all who ask within a second."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterable

from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gradwatch.exports import CHIEF
from gradwatch.exposition import Page
from gradwatch.health import health
from gradwatch.metrics import RunCollector
from gradwatch.runstate import Snapshot
from gradwatch.service.options import Options
from gradwatch.service.runs import Runs, Seen
from gradwatch.service.scanner import Scanner, Stuck, View

__all__ = ["Scrape"]

_ENCODINGS = 8  # kept of one page: clients choose the content type


class Scrape:
    """Answers `/metrics`.

    Args:
        runs: whose clock it is.
        scanner: finds them.
        options: see `Options`.
    """

    def __init__(self, runs: Runs, scanner: Scanner, options: Options) -> None:
        self._clock = runs.clock
        self._scanner = scanner
        self._options = options
        self._collector = RunCollector(
            self._snapshots,
            lambda: self._view.errors,
            health=self._health,
            room=lambda: self._view.room,
            max_series=options.max_series,
        )
        self._lock = asyncio.Lock()
        self._view = View()
        self._current: dict[tuple[str, str], Seen] = {}
        self._page: Page | None = None
        self._bodies: dict[tuple[str, bool], bytes] = {}

    async def answer(self, request: Request) -> Response:
        """Answers one request, in the format and encoding that it accepts."""
        accepted = request.headers.get("accept-encoding", "")
        zipped = gzip_accepted(accepted)
        encode, content_type = _encoder(
            ",".join(request.headers.getlist("accept"))
        )
        try:
            body = await self._body(encode, content_type, zipped)
        except Stuck:
            return PlainTextResponse("The runs cannot be read.\n", 503)
        headers = {
            "Content-Type": content_type,
            "Vary": "Accept, Accept-Encoding",
        }
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)

    async def _body(
        self,
        encode: Callable[[Collector], bytes],
        content_type: str,
        zipped: bool,
    ) -> bytes:
        async with self._lock:
            view = await self._scanner.view()
            if self._page is None or view is not self._view:
                self._view = view
                self._page = await asyncio.to_thread(self._collector.page)
                self._bodies.clear()
            key = content_type, zipped
            if key not in self._bodies:
                if len(self._bodies) >= _ENCODINGS:
                    self._bodies.clear()
                self._bodies[key] = await asyncio.to_thread(
                    _encoded, self._page, encode, zipped
                )
            return self._bodies[key]

    def _snapshots(self) -> Iterable[Snapshot]:
        """What is exported, always in the same order: the limit cuts last."""
        clock = self._clock()
        retention = self._options.retention
        current = [s for s in self._view.seen if s.is_current(clock, retention)]
        current.sort(key=_order)
        self._current = {_key(seen.snapshot): seen for seen in current}
        return [seen.snapshot for seen in current]

    def _health(self, snapshot: Snapshot) -> str:
        now = self._current[_key(snapshot)].now(self._clock())
        return health(snapshot, now, self._options.stalled_after)


def _order(seen: Seen) -> tuple[float, str, str]:
    run = seen.snapshot["run"]
    return -run["start"], run["id"], seen.snapshot.get("rank", CHIEF)


def _key(snapshot: Snapshot) -> tuple[str, str]:
    return snapshot["run"]["id"], snapshot.get("rank", CHIEF)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    # prometheus_client 0.26 compares a version that is no number with 1.0.0.
    except (TypeError, ValueError):
        return choose_encoder("")


def _encoded(
    page: Page, encode: Callable[[Collector], bytes], zipped: bool
) -> bytes:
    body = page.text(encode)
    return gzip.compress(body, compresslevel=1) if zipped else body
