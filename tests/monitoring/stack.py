"""A real Prometheus and Alertmanager with our files, and who is told."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from gradwatch.monitoring.files import files, write
from gradwatch.monitoring.thresholds import Settings
from tests.service.conftest import stopping

PATIENCE = 60.0


class Told(NamedTuple):
    """A notification.

    Attributes:
        alert: its name.
        about: the run, or where there is none, the service.
        status: `firing` or `resolved`.
        time: Unix time in seconds at which it came.
    """

    alert: str
    about: str
    status: str
    time: float


@dataclass
class Webhook:
    """Takes what Alertmanager sends."""

    url: str = ""
    told: list[Told] = field(default_factory=list)

    def heard(self, status: str) -> set[tuple[str, str]]:
        """Returns alert and what it is about, of all notifications."""
        return {(t.alert, t.about) for t in self.told if t.status == status}

    def wait(self, alert: str, about: str, status: str = "firing") -> Told:
        """Waits for a notification."""
        end = time.monotonic() + PATIENCE
        while True:
            for told in list(self.told):
                if told[:3] == (alert, about, status):
                    return told
            assert time.monotonic() < end, f"no {alert}: {self.told}"
            time.sleep(0.05)

    def take(self, body: bytes) -> None:
        """Keeps what a request says."""
        now = time.time()
        for alert in json.loads(body)["alerts"]:
            labels = alert["labels"]
            about = labels.get("run", labels.get("instance", ""))
            name, status = labels["alertname"], alert["status"]
            self.told.append(Told(name, about, status, now))


@dataclass(frozen=True)
class Stack:
    """What runs.

    Attributes:
        prometheus: its URL.
        alerts: what the receivers of alerts were told.
        watchdog: what the dead-man's switch was told.
    """

    prometheus: str
    alerts: Webhook
    watchdog: Webhook

    def query(self, expression: str) -> list[dict[str, str]]:
        """Returns the labels of what a query finds."""
        return [found["metric"] for found in self.ask(expression)]

    def ask(
        self, expression: str, over: tuple[float, float] | None = None
    ) -> list[dict[str, Any]]:
        """Returns what a query finds: `metric`, and `value` or `values`.

        Args:
            expression: PromQL.
            over: begin and end in Unix seconds, a value each second; `None` =
                one value, of now.
        """
        path = f"query?query={quote(expression)}"
        if over:
            begin, end = over
            path = f"query_range?query={quote(expression)}"
            path += f"&start={begin}&end={end}&step=1"
        url = f"{self.prometheus}/api/v1/{path}"
        with urlopen(url, timeout=5) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return found

    def await_result(self, expression: str) -> None:
        """Waits until a query finds something."""
        end = time.monotonic() + PATIENCE
        while not self.query(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.2)


@contextmanager
def listening() -> Iterator[Webhook]:
    """Listens for notifications on a free port."""
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            webhook.take(self.rfile.read(length))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    webhook.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield webhook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Returns a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving(*logdirs: Path, port: int = 0) -> Iterator[str]:
    """Runs `gradwatch serve`; yields host and port."""
    command = [sys.executable, "-m", "gradwatch.cli", "serve"]
    folders = [part for path in logdirs for part in ("--logdir", str(path))]
    process = subprocess.Popen(
        [*command, *folders, "--port", str(port), "--stalled-after", "5"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with stopping(process):
        assert process.stdout
        with process.stdout as stdout:
            said = stdout.readline()
            assert said.startswith("Serving http://"), said
            yield said.split()[1].split("/")[2]


@contextmanager
def monitoring(
    folder: Path, targets: list[str], **settings: Any
) -> Iterator[Stack]:
    """Runs Prometheus and Alertmanager with files built for `settings`."""
    with ExitStack() as stack:
        alerts = stack.enter_context(listening())
        watchdog = stack.enter_context(listening())
        settings |= {"webhook": alerts.url, "watchdog": watchdog.url}
        write(folder, files(Settings(**settings)))
        manager, port = free_port(), free_port()
        config = folder / "prometheus.yml"  # JSON is YAML
        config.write_text(json.dumps(_config(folder, manager, targets)))
        start(
            stack,
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager' / 'alertmanager.yml'}",
            f"--storage.path={folder / 'am'}",
            f"--web.listen-address=127.0.0.1:{manager}",
            "--cluster.listen-address=",
        )
        start(
            stack,
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            # It finds Alertmanager 5 s after it has sent the first alerts.
            "--rules.alert.resend-delay=5s",
        )
        for used in (manager, port):
            await_ready(f"http://127.0.0.1:{used}/-/ready")
        yield Stack(f"http://127.0.0.1:{port}", alerts, watchdog)


def _config(
    folder: Path, manager: int, targets: list[str]
) -> Mapping[str, Any]:
    second = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    found = {"targets": [f"127.0.0.1:{manager}"]}
    return {
        "global": {**second, "scrape_timeout": "900ms"},
        "rule_files": [
            str(folder / "prometheus" / name)
            for name in ("recording.yml", "alerts.yml")
        ],
        "alerting": {"alertmanagers": [{"static_configs": [found]}]},
        "scrape_configs": [
            {
                "job_name": "gradwatch",
                "static_configs": [{"targets": targets}],
            }
        ],
    }


def start(stack: ExitStack, name: str, *arguments: str) -> None:
    """Starts a program, which ends with the stack."""
    binary = shutil.which(name)
    if not binary:
        pytest.fail(f"`{name}` is not installed: see `make debian`")
    process = subprocess.Popen(
        [binary, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.enter_context(stopping(process))


def await_ready(url: str) -> None:
    """Waits until something answers."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < end, url
            time.sleep(0.1)
