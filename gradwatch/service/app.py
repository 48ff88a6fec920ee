"""The service: metrics, API and pages of all runs below some folders.

A look at the disk never runs on the event loop, and all who ask within a
second share one. Reads `state.json` files only; training does not know that it
exists. Needs the extra `[serve]`. Must not import keras, tensorflow or the
trainer's side.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gradwatch.drawing import STYLE
from gradwatch.service.api import Api
from gradwatch.service.options import Options
from gradwatch.service.pages import STATIC, Pages
from gradwatch.service.patience import Impatient
from gradwatch.service.runs import Runs
from gradwatch.service.scanner import Scanner, Stuck
from gradwatch.service.scrape import Scrape
from gradwatch.service.security import Guard

__all__ = ["create_app", "create_server", "listen"]

_CONNECTIONS = 2048  # at once; more are told to come again


def create_app(runs: Runs, options: Options | None = None) -> Starlette:
    """Returns the ASGI application that serves `runs`."""
    options = options or Options()
    scanner = Scanner(runs)
    api = Api(runs, scanner, options)
    pages = Pages(runs, scanner, options)

    @contextlib.asynccontextmanager
    async def scanning(app: Starlette) -> AsyncIterator[None]:
        scanner.start()
        yield
        scanner.stop()

    app = Starlette(
        routes=[
            Route("/metrics", Scrape(runs, scanner, options).answer),
            *_probes(scanner),
            Route("/api/runs", api.runs),
            Route("/api/runs/{run}", api.run),
            Route("/", pages.fleet),
            Route("/runs/{run}", pages.run),
            Mount("/static", _static()),
        ],
        middleware=[
            Middleware(Guard, options.credentials, options.local),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=1),
        ],
        lifespan=scanning,
    )
    app.router.redirect_slashes = False
    return app


def _static() -> StaticFiles:
    """The service's own style and script, and the style of charts."""
    shared: list[str | tuple[str, str]] = [
        ("gradwatch.drawing", STYLE.parent.name)
    ]
    return StaticFiles(directory=STATIC, packages=shared)


def _probes(scanner: Scanner) -> list[Route]:
    """Whether the service is alive, and whether it can read its folders."""

    async def healthy(request: Request) -> Response:
        if scanner.stuck:
            return PlainTextResponse("The runs cannot be read.\n", 503)
        return PlainTextResponse("gradwatch is healthy.\n")

    async def ready(request: Request) -> Response:
        try:
            view = await scanner.view()
        except Stuck:
            return PlainTextResponse("The runs have not been read.\n", 503)
        if "missing" in view.problems:
            return PlainTextResponse("A logdir does not exist (yet).\n", 503)
        return PlainTextResponse("gradwatch is ready.\n")

    return [Route("/-/healthy", healthy), Route("/-/ready", ready)]


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


def create_server(app: Starlette, **tls: Any) -> uvicorn.Server:
    """Returns a server; `run(sockets=[...])` serves until SIGINT or SIGTERM.

    Args:
        app: see `create_app`.
        tls: uvicorn's own options `ssl_certfile` and `ssl_keyfile`.
    """
    config = uvicorn.Config(
        app,
        http=Impatient,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=2,
        **tls,
    )
    return uvicorn.Server(config)
