from __future__ import annotations

import gzip
import http.client
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families

from gradwatch.runstate import RunState
from gradwatch.service import scanner
from gradwatch.service.runs import Runs, Seen
from gradwatch.service.security import is_loopback

NewState = Callable[..., RunState]
Save = Callable[[Path, RunState], Path]
ServeRuns = Callable[[Runs], str]

# prometheus_client 0.26 has no types for it.
parse_openmetrics: Callable[[str], Iterable[Metric]] = (
    parser.text_string_to_metric_families
)


class Answer(NamedTuple):
    """An HTTP response that was read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    url: str, path: str = "/metrics", method: str = "GET", **headers: str
) -> Answer:
    """Sends one request; header names are written with underscores."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.fixture
def root(tmp_path: Path, new_state: NewState, save: Save) -> Path:
    """A folder with one run."""
    save(tmp_path, new_state("one"))
    return tmp_path


def test_metrics_as_text(root: Path, serve_runs: ServeRuns) -> None:
    """Without an Accept header the classic text format comes."""
    answer = ask(serve_runs(Runs([root])))
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(
        "text/plain; version=0.0.4"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert 'gradwatch_loss{run="one",split="train"} 0.5' in answer.body.decode()
    assert 'gradwatch_run_health{health="ok",run="one"} 1.0' in (
        answer.body.decode()
    )
    names = {
        m.name for m in text_string_to_metric_families(answer.body.decode())
    }
    assert {"gradwatch_source_errors", "gradwatch_runs"} <= names


def test_metrics_as_openmetrics_and_gzip(
    root: Path, serve_runs: ServeRuns
) -> None:
    """Format and compression are negotiated, and both can be had at once."""
    answer = ask(
        serve_runs(Runs([root])),
        Accept="application/openmetrics-text; version=1.0.0",
        Accept_Encoding="gzip",
    )
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "application/openmetrics-text" in answer.headers["Content-Type"]
    text = gzip.decompress(answer.body).decode()
    assert text.endswith("# EOF\n")
    assert "gradwatch_steps" in {m.name for m in parse_openmetrics(text)}
    assert "_created" not in text


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text; version=99.0.0",
        "text/plain; version=x.y",
        "application/json",
        "\xff;;;,,=",
    ],
)
def test_strange_accept_headers_get_an_answer(
    root: Path, serve_runs: ServeRuns, accept: str
) -> None:
    """No Accept header makes a scrape fail."""
    assert ask(serve_runs(Runs([root])), Accept=accept).status == 200


def test_other_pages(root: Path, serve_runs: ServeRuns) -> None:
    """Probes answer; all else is not found, and only GET and HEAD."""
    url = serve_runs(Runs([root]))
    for path in ("/-/healthy", "/-/ready"):
        assert ask(url, path).status == 200
    for path in ("/etc/passwd", "/metrics/", "/../metrics", "/favicon.ico"):
        answer = ask(url, path)
        assert answer.status == 404
        assert b"gradwatch" not in answer.body
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = ask(url, "/metrics", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) > 1000
    for method in ("POST", "PUT", "DELETE"):
        assert ask(url, "/metrics", method).status == 405


def test_ready_needs_the_folder(tmp_path: Path, serve_runs: ServeRuns) -> None:
    """A logdir that does not exist yet is said, and metrics are served."""
    logdir = tmp_path / "later"
    url = serve_runs(Runs([logdir]))
    assert ask(url, "/-/ready").status == 503
    missing = rb'gradwatch_source_errors_total{reason="missing"} [1-9]'
    assert re.search(missing, ask(url).body)  # once a look
    logdir.mkdir()
    time.sleep(1.1)
    assert ask(url, "/-/ready").status == 200


def test_parallel_scrapes_share_one_scan(
    root: Path, serve_runs: ServeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty scrapes in its time are one look; a later one is another."""
    monkeypatch.setattr(scanner, "_FRESH", 600.0)
    looks: list[float] = []

    class Counting(Runs):
        def look(self) -> list[Seen]:
            looks.append(time.monotonic())
            return super().look()

    url = serve_runs(Counting([root]))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, [url] * 20))
    assert len({answer.body for answer in answers}) == 1
    assert len(looks) == 1
    monkeypatch.setattr(scanner, "_FRESH", 0.0)
    assert ask(url).body != answers[0].body
    assert len(looks) == 2


class Hanging(Runs):
    """Runs whose disk is dead until `go_on`."""

    def __init__(self, root: Path) -> None:
        super().__init__([root])
        self.looking, self.go_on = threading.Event(), threading.Event()

    def look(self) -> list[Seen]:
        """Looks when the disk is there again."""
        self.looking.set()
        assert self.go_on.wait(30)
        return super().look()


def test_a_slow_look_blocks_nobody_else(
    root: Path, serve_runs: ServeRuns
) -> None:
    """While a look hangs, as on a dead disk, the service answers others."""
    url = serve_runs(runs := Hanging(root))
    with ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(ask, url)
        try:
            assert runs.looking.wait(10)
            assert ask(url, "/-/healthy").status == 200
            assert not scrape.done()
        finally:
            runs.go_on.set()
        assert scrape.result(10).status == 200


def test_a_stuck_scanner_is_told(
    root: Path, serve_runs: ServeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever, and no old number is taken for a new one."""
    monkeypatch.setattr("gradwatch.service.scanner._PATIENCE", 0.2)
    monkeypatch.setattr("gradwatch.service.scanner._STUCK", 0.5)
    url = serve_runs(runs := Hanging(root))
    try:
        for path in ("/metrics", "/api/runs", "/api/runs/one", "/-/ready"):
            assert ask(url, path).status == 503
        time.sleep(0.5)
        assert ask(url, "/-/healthy").status == 503
    finally:
        runs.go_on.set()
    assert ask(url).status == 200
    assert ask(url, "/-/healthy").status == 200


def test_idle_connections_block_nobody(
    root: Path, serve_runs: ServeRuns
) -> None:
    """300 connections that send nothing do not delay a scrape."""
    url = serve_runs(Runs([root]))
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(
                socket.create_connection((address.hostname, address.port))
            )
        began = time.monotonic()
        assert ask(url).status == 200
        assert time.monotonic() - began < 2.0


def test_the_page_passes_promtool(root: Path, serve_runs: ServeRuns) -> None:
    """`promtool check metrics` has nothing to say about the service's page."""
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.fail("`promtool` is not installed: apt install prometheus")
    body = ask(serve_runs(Runs([root]))).body
    done = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_loads_no_training_package() -> None:
    """Service and CLI import neither Keras nor TensorFlow."""
    code = (
        "import sys, gradwatch.cli\n"
        "assert 'starlette' not in sys.modules\n"
        "import gradwatch.service.app\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loopback_is_recognised() -> None:
    """Only addresses of this machine are loopback."""
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "host")))
