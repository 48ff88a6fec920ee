"""Who may read, and what every answer says to browsers.

Nothing that a run says can become code in a browser: no page holds script or
style of its own, and none may be loaded from elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradwatch.errors import GradWatchError, expected

__all__ = ["HEADERS", "Credentials", "Guard", "is_loopback", "read_credentials"]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every response."""

OPEN = ("/-/healthy", "/-/ready")
"""Answered without credentials: probes have none, and they tell nothing."""

_SHORTEST = 12  # characters of a password or token


class Credentials:
    """Passwords and tokens that open the service.

    Args:
        lines: `user:password` for basic authentication, or a token.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._basic = [_digest(line) for line in lines if ":" in line]
        self._tokens = [_digest(line) for line in lines if ":" not in line]

    @property
    def challenge(self) -> str:
        """What to ask for."""
        kind = "Basic" if self._basic else "Bearer"
        return f'{kind} realm="gradwatch"'

    def allow(self, authorization: str) -> bool:
        """Returns whether a request with this header may pass.

        Takes as long whatever is right about it.
        """
        scheme, _, value = authorization.partition(" ")
        known, given = self._tokens, value.strip()
        if scheme.lower() == "basic":
            known = self._basic
            try:
                decoded = base64.b64decode(given, validate=True)
                given = decoded.decode()
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        digest = _digest(given)
        matches = [hmac.compare_digest(digest, each) for each in known]
        return any(matches)


def _digest(secret: str) -> bytes:
    """All are as long, so that their comparison takes as long."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def read_credentials(path: Path) -> Credentials:
    """Reads a file with one `user:password`, or one token, a line.

    Lines that are empty or begin with `#` are left out.

    Raises:
        GradWatchError: it cannot be read, or holds nothing that is secret
            enough; never says what it holds.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise GradWatchError(f"`--auth-file {path}`: {error}.") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    secrets = [line.partition(":")[2] or line for line in lines]
    if not lines or any(len(secret) < _SHORTEST for secret in secrets):
        what = f"one `user:password` or token a line, of {_SHORTEST} characters"
        do = "Make one: python -c 'import secrets; print(secrets.token_hex())'"
        received = f"{len(lines)} lines"
        raise GradWatchError(expected("--auth-file", what, received, do))
    return Credentials(lines)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a service on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets in who may, and adds the headers that every response has.

    Args:
        app: what is guarded.
        credentials: who may; `None` = everybody.
        local: whether only requests to a name of this machine are answered:
            else a page elsewhere could have its own name resolved to it, and a
            browser on this machine would read the answers to that page.
    """

    def __init__(
        self, app: ASGIApp, credentials: Credentials | None, local: bool
    ) -> None:
        self._app = app
        self._credentials = credentials
        self._local = local

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                static = scope["path"].startswith("/static/")
                headers["Cache-Control"] = "no-cache" if static else "no-store"
            await send(message)

        app = self._refusal(scope) or self._app
        await app(scope, receive, send_more)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if self._local and not is_loopback(_host(headers.get("host", ""))):
            told = "This service answers to the names of its own machine.\n"
            return PlainTextResponse(told, 421)
        if self._credentials is None or scope["path"] in OPEN:
            return None
        if self._credentials.allow(headers.get("authorization", "")):
            return None
        asked = {"WWW-Authenticate": self._credentials.challenge}
        return PlainTextResponse("Unauthorized.\n", 401, asked)


def _host(header: str) -> str:
    """Returns the host of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
