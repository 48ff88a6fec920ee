"""Who may read, over real connections."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from gradwatch.cli import app
from gradwatch.errors import GradWatchError
from gradwatch.runstate import RunState
from gradwatch.service.options import Options
from gradwatch.service.runs import Runs
from gradwatch.service.security import HEADERS, Credentials, read_credentials
from tests.service.conftest import stopping
from tests.service.test_app import ask

NewState = Callable[..., RunState]
Save = Callable[[Path, RunState], Path]
ServeRuns = Callable[..., str]

PASSWORD = "correct:horse battery é"
TOKEN = "c0ffee" * 6
PATHS = ("/", "/metrics", "/api/runs", "/api/runs/one", "/static/gradwatch.js")


def basic(user: str, password: str) -> str:
    """Returns the header of basic authentication."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture
def root(tmp_path: Path, new_state: NewState, save: Save) -> Path:
    """A folder with one run."""
    save(tmp_path / "runs", new_state("one"))
    return tmp_path / "runs"


@pytest.fixture
def auth_file(tmp_path: Path) -> Path:
    """A file with a password and a token."""
    path = tmp_path / "auth.txt"
    path.write_text(f"# who may read\nteam:{PASSWORD}\n\n{TOKEN}\n")
    return path


def test_passwords_and_tokens_open(
    root: Path, auth_file: Path, serve_runs: ServeRuns
) -> None:
    """Everything but the probes needs what is in the file, and no less."""
    options = Options(credentials=read_credentials(auth_file))
    url = serve_runs(Runs([root]), options)
    good = (basic("team", PASSWORD), f"Bearer {TOKEN}", f"bearer  {TOKEN}")
    bad = (
        "",
        basic("team", PASSWORD[:-1]),
        basic("", PASSWORD),
        basic("team", ""),
        f"Basic {TOKEN}",
        f"Bearer team:{PASSWORD}",
        f"Bearer {TOKEN}x",
        "Basic %%%",
        "Basic /w==",
        f"Digest {TOKEN}",
    )
    for path in PATHS:
        for header in good:
            header = header.encode().decode("latin-1")
            assert ask(url, path, Authorization=header).status == 200
        for header in bad:
            answer = ask(url, path, Authorization=header)
            assert answer.status == 401
            challenge = 'Basic realm="gradwatch"'
            assert answer.headers["WWW-Authenticate"] == challenge
            assert b"one" not in answer.body
    for path in ("/-/healthy", "/-/ready"):
        assert ask(url, path).status == 200


def test_a_token_alone_asks_for_a_token() -> None:
    """Browsers are not asked for a password where there is none."""
    assert Credentials([TOKEN]).challenge == 'Bearer realm="gradwatch"'


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "short", f"{TOKEN}\nu:short"]
)
def test_weak_credentials_are_refused(tmp_path: Path, text: str) -> None:
    """What can be guessed is no secret; the message does not tell it."""
    path = tmp_path / "auth.txt"
    path.write_text(text)
    with pytest.raises(GradWatchError, match="token a line, of 12") as error:
        read_credentials(path)
    assert "short" not in str(error.value)
    with pytest.raises(GradWatchError, match="No such file"):
        read_credentials(tmp_path / "nowhere")


def test_every_answer_has_the_headers(
    root: Path, serve_runs: ServeRuns
) -> None:
    """Pages, errors and refusals tell browsers the same."""
    url = serve_runs(Runs([root]))
    for path in (*PATHS, "/nowhere", "/-/healthy", "/runs/nobody"):
        answer = ask(url, path)
        for name, value in HEADERS.items():
            assert answer.headers.get_all(name) == [value]
        assert "server" not in answer.headers
        assert "no-" in answer.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9753", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:9753", 200),
        ("127.0.0.1.evil.example", 421),
        ("evil.example:9753", 421),
        ("[evil.example]", 421),
        ("", 421),
    ],
)
def test_foreign_names_are_not_answered(
    root: Path, serve_runs: ServeRuns, host: str, status: int
) -> None:
    """A page elsewhere whose name leads here gets nothing (DNS rebinding)."""
    url = serve_runs(Runs([root]))
    answer = ask(url, "/api/runs", Host=host)
    assert answer.status == status
    assert (b"one" in answer.body) == (status == 200)


def test_names_do_not_matter_to_others(
    root: Path, serve_runs: ServeRuns
) -> None:
    """A service for others is asked by any name."""
    url = serve_runs(Runs([root]), Options(local=False))
    assert ask(url, "/metrics", Host="gradwatch.example").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/runs/..",
        "/runs/%2e%2e",
        "/runs/..%2f..%2fetc%2fpasswd",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/api/runs/one/../../../etc/passwd",
        "/runs/one%00",
        "/runs/one%0d%0aSet-Cookie:%20x=1",
        "/%ff%fe",
        "/runs/" + "a" * 5000,
    ],
)
def test_no_path_leads_out(
    root: Path, serve_runs: ServeRuns, path: str
) -> None:
    """Strange paths are not found; nothing of them comes back."""
    answer = ask(serve_runs(Runs([root])), path)
    assert answer.status == 404
    assert "Set-Cookie" not in answer.headers
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


def test_silent_connections_are_closed(
    root: Path, serve_runs: ServeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends nothing, half a header, or nothing more, keeps no place."""
    monkeypatch.setattr("gradwatch.service.patience._IDLE", 0.3)
    monkeypatch.setattr("gradwatch.service.app._CONNECTIONS", 40)
    url = serve_runs(Runs([root]))
    address = urlsplit(url)
    with ExitStack() as stack:
        peers = [
            stack.enter_context(
                socket.create_connection((address.hostname or "", address.port))
            )
            for _ in range(60)
        ]
        for peer in peers[::2]:
            peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        assert ask(url).status == 503  # all places are taken
        time.sleep(1.0)
        assert ask(url).status == 200
        for peer in peers:
            peer.settimeout(5)
            assert peer.recv(1) == b""


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key, made by openssl."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext"]
    command += ["subjectAltName=IP:127.0.0.1"]
    command += ["-out", str(cert), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Runs `gradwatch serve` and returns the URL that it prints."""
    command = [sys.executable, "-m", "gradwatch.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, text=True
    )
    with stopping(process):
        assert process.stdout
        with process.stdout as stdout:
            yield stdout.readline().split()[-1]


def test_silent_tls_peers_block_nobody(
    root: Path, auth_file: Path, certificate: tuple[Path, Path]
) -> None:
    """20 peers that never shake hands do not delay a scrape over TLS."""
    cert, key = map(str, certificate)
    trusted = ssl.create_default_context(cafile=cert)
    with (
        serving(
            *("--logdir", str(root), "--auth-file", str(auth_file)),
            *("--ssl-certfile", cert, "--ssl-keyfile", key),
        ) as url,
        ExitStack() as stack,
    ):
        assert url.startswith("https://127.0.0.1:")
        port = urlsplit(url).port
        for _ in range(20):
            peer = socket.create_connection(("127.0.0.1", port))
            stack.enter_context(peer)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = Request(f"{url}api/runs", headers=headers)
        began = time.monotonic()
        with urlopen(request, context=trusted, timeout=10) as response:
            told = json.load(response)
        assert time.monotonic() - began < 2.0
        assert [run["run"] for run in told["runs"]] == ["one"]
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            pytest.raises(ssl.SSLError),
        ):
            old.wrap_socket(plain)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--auth-file", "nowhere"], "No such file"),
        (["--ssl-keyfile", "nowhere"], "a certificate and its key"),
        (["--ssl-certfile", "nowhere"], "No such file"),
        (["--grafana-url", "javascript:alert(1)"], "Expected a URL"),
        (["--tensorboard-url", "tb.example:6006"], "Expected a URL"),
        (["--host", "203.0.113.7"], "cannot listen there"),
    ],
)
def test_what_cannot_be_used_is_said(
    root: Path, arguments: list[str], said: str
) -> None:
    """A wrong option ends the command with one line, and serves nothing."""
    command = ["serve", "--logdir", str(root), "--port", "0", *arguments]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Serving" not in done.stdout


def test_a_public_bind_is_warned_of(root: Path, auth_file: Path) -> None:
    """What is missing is said: a password, and TLS."""
    command = ["serve", "--logdir", str(root), "--host", "203.0.113.7"]
    both = CliRunner().invoke(app, command).stderr
    assert "there is no --auth-file" in both
    assert "there is no --ssl-certfile" in both
    command += ["--auth-file", str(auth_file)]
    one = CliRunner().invoke(app, command).stderr
    assert "there is no --auth-file" not in one
    assert "Passwords, tokens and answers can be read on the way" in one
