"""What `gradwatch serve` does: checks, says where, serves."""

from __future__ import annotations

import gc
import resource
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradwatch.errors import GradWatchError, expected
from gradwatch.service.app import create_app, create_server, listen
from gradwatch.service.options import Options
from gradwatch.service.runs import Runs
from gradwatch.service.security import is_loopback, read_credentials

__all__ = ["serve"]

_FILES = 8192  # open at once; many systems allow 1024 if nobody asks


def serve(
    logdirs: Sequence[Path],
    host: str,
    port: int,
    options: Options,
    auth_file: Path | None,
    tls: Mapping[str, Path | None],
    say: Callable[..., Any],
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        logdirs: folders with run directories; they need not exist yet.
        host: interface to listen on.
        port: TCP port; 0 = a free one.
        options: choices; who may read is added here.
        auth_file: see `read_credentials`.
        tls: uvicorn's options `ssl_certfile` and `ssl_keyfile`.
        say: takes a line, and `err=True` where it is a warning.

    Raises:
        GradWatchError: something cannot be used; says what.
    """
    _check_url("--grafana-url", options.grafana)
    _check_url("--tensorboard-url", options.tensorboard)
    files = _certificate(tls)
    credentials = read_credentials(auth_file) if auth_file else None
    local = is_loopback(host) and credentials is None
    options = replace(options, credentials=credentials, local=local)
    for folder in logdirs:
        if not folder.is_dir():
            say(f"`{folder}` does not exist yet; waiting.", err=True)
    if not is_loopback(host):
        _warn(host, bool(files), credentials is not None, say)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise GradWatchError(
            f"`--host {host} --port {port}`: cannot listen there "
            f"({error.strerror}). Choose another port; 0 takes a free one."
        ) from None
    real = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    say(f"Serving http{'s' * bool(files)}://{shown}:{real}/")
    app = create_app(Runs(logdirs), options)
    _allow_files()
    # A look at many runs makes a million objects and no cycles: looking for
    # some after every 700 would take longer than the look.
    gc.set_threshold(50_000, 20, 50)
    create_server(app, **files).run(sockets=[listening])


def _allow_files() -> None:
    """Lets the process open more files than connections can take from it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _warn(
    host: str, encrypted: bool, closed: bool, say: Callable[..., Any]
) -> None:
    """Says what is missing on a host that others can reach."""
    if not closed:
        say(
            f"Everybody who can reach {host} can read all about the runs: "
            "there is no --auth-file.",
            err=True,
        )
    if not encrypted:
        said = "Passwords, tokens and answers" if closed else "Answers"
        say(
            f"{said} can be read on the way: there is no --ssl-certfile.",
            err=True,
        )


def _certificate(tls: Mapping[str, Path | None]) -> dict[str, str]:
    """Returns the options for uvicorn, none without a certificate."""
    files = {name: str(path) for name, path in tls.items() if path}
    if not files:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    except (KeyError, OSError) as error:
        raise GradWatchError(
            expected(
                "--ssl-certfile, --ssl-keyfile",
                "a certificate and its key, as PEM",
                " ".join(files.values()),
                f"The reason: {error}.",
            )
        ) from None
    return files


def _check_url(option: str, url: str) -> None:
    parts = urlsplit(url)
    if url and not (parts.scheme in ("http", "https") and parts.netloc):
        what, do = "a URL", "Begin it with http:// or https://."
        raise GradWatchError(expected(option, what, url, do))
