"""The service: metrics of all runs below some folders, over HTTP.

A scan never runs on the event loop, and parallel scrapes share one. Reads
`state.json` files only; training does not know that it exists. Needs the extra
`[serve]`. Must not import keras, tensorflow or the trainer's side.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable

import uvicorn
from prometheus_client.core import Metric
from prometheus_client.exposition import (
    choose_encoder,
    gzip_accepted,
)
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradwatch.metrics import RunCollector
from gradwatch.service.runs import Runs

__all__ = ["create_app", "create_server", "is_loopback", "listen"]

_FRESH = 1.0  # seconds for which a collection is shared
_ENCODINGS = 8  # kept of one collection: clients choose the content type
_CONNECTIONS = 512  # at once; a loopback default has few
_INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>gradwatch</title></head>
<body><h1>gradwatch</h1><ul>
<li><a href="/metrics">/metrics</a>: for Prometheus</li>
<li><a href="/-/healthy">/-/healthy</a>: this process answers</li>
<li><a href="/-/ready">/-/ready</a>: the run directories can be read</li>
</ul></body></html>
"""


class _Collected(Collector):
    """What was collected once, for encoders that ask a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _Pages:
    """Encoded collections, shared for a second: one flight at a time.

    Args:
        collector: runs in a thread, never twice at once.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._collected = _Collected(())
        self._bodies: dict[tuple[str, bool], bytes] = {}

    async def get(self, accept: str, zipped: bool) -> tuple[str, bytes]:
        """Returns content type and body.

        Args:
            accept: the client's `Accept` header.
            zipped: whether the body is to be gzipped.
        """
        encode, content_type = _encoder(accept)
        key = (content_type, zipped)
        async with self._lock:
            if time.monotonic() >= self._until:
                collected = self._collector.collect
                self._collected = await asyncio.to_thread(
                    lambda: _Collected(collected())
                )
                self._until = time.monotonic() + _FRESH
                self._bodies.clear()
            if key not in self._bodies:
                if len(self._bodies) >= _ENCODINGS:
                    self._bodies.clear()
                self._bodies[key] = await asyncio.to_thread(
                    _encode, encode, self._collected, zipped
                )
            return content_type, self._bodies[key]


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    # prometheus_client 0.26 compares a version that is no number with 1.0.0.
    except (TypeError, ValueError):
        return choose_encoder("")


def _encode(
    encode: Callable[[Collector], bytes], collected: Collector, zipped: bool
) -> bytes:
    body = encode(collected)
    return gzip.compress(body, compresslevel=1) if zipped else body


class _Headers:
    """Adds the headers that every response has, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_more)


async def _index(request: Request) -> Response:
    return HTMLResponse(_INDEX)


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("gradwatch is healthy.\n")


def create_app(runs: Runs) -> Starlette:
    """Returns the ASGI application that serves `runs`."""
    collector = RunCollector(runs.current, runs.errors, health=runs.health)
    pages = _Pages(collector)

    async def metrics(request: Request) -> Response:
        accepted = request.headers.get("accept-encoding", "")
        zipped = gzip_accepted(accepted)
        accept = ",".join(request.headers.getlist("accept"))
        content_type, body = await pages.get(accept, zipped)
        headers = {
            "Content-Type": content_type,
            "Vary": "Accept, Accept-Encoding",
        }
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)

    async def ready(request: Request) -> Response:
        there = [await asyncio.to_thread(r.is_dir) for r in runs.roots]
        if all(there):
            return PlainTextResponse("gradwatch is ready.\n")
        return PlainTextResponse("A logdir does not exist (yet).\n", 503)

    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/metrics", metrics),
            Route("/-/healthy", _healthy),
            Route("/-/ready", ready),
        ],
        middleware=[Middleware(_Headers)],
    )
    app.router.redirect_slashes = False
    return app


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a service on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    Args:
        host: name or address of an interface.
        port: TCP port; 0 = a free one.

    Raises:
        OSError: the port is taken, or the host is not one of this machine.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family)


def create_server(app: Starlette) -> uvicorn.Server:
    """Returns a server; `run(sockets=[...])` serves until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
