"""Direct notification: real fits, real HTTP, receivers that fail."""

from __future__ import annotations

import json
import logging
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwatch import GradWatch, GradWatchError
from gradwatch.records import (
    Autopsy,
    Beat,
    Block,
    Finding,
    Phase,
    Run,
    Schema,
    Severity,
)
from gradwatch.sinks.notify import NotifySink, notify_sinks
from tests.models import classifier, data

RUN = Run("run-1", "run", 1000.0, "host", {}, {})
BAD = 5
"""The step whose batch holds NaN."""

SECRET = "s3cr3tt0ken"


class Receiver(ThreadingHTTPServer):
    """Takes what Apprise posts; refuses the first `failures` of it."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.asked: list[float] = []
        self.told: list[tuple[float, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), Post)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self) -> str:
        """Its Apprise URL, with secrets wherever one can be."""
        where = f"127.0.0.1:{self.server_port}/{SECRET}"
        return f"json://user:{SECRET}@{where}?+X-Token={SECRET}"

    @property
    def titles(self) -> list[str]:
        """What it was told."""
        return [told["title"] for _, told in self.told]

    def end(self) -> None:
        """Ends its thread."""
        self.shutdown()
        self.server_close()
        self.thread.join()


class Post(BaseHTTPRequestHandler):
    """One request."""

    server: Receiver

    def do_POST(self) -> None:
        """Keeps what was posted, or answers 500."""
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(time.monotonic())
        fails = len(self.server.asked) <= self.server.failures
        if not fails:
            self.server.told.append((time.monotonic(), json.loads(text)))
        self.send_response(500 if fails else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that works."""
    server = Receiver()
    yield server
    server.end()


def dead() -> str:
    """Returns a URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"json://127.0.0.1:{free.getsockname()[1]}/{SECRET}"


def sink_for(url: str) -> NotifySink:
    """Returns an open sink."""
    (sink,) = notify_sinks([url])
    sink.open(RUN, Schema())
    return sink


def finding(number: int, severity: Severity = "warning") -> Finding:
    """Returns a finding at a step of its own."""
    what = "dead_layer", severity, "dense/kernel", number, 9
    return Finding(*what, {}, (), "It is <dead>.", "Fix *it*.")


class Clock(keras.callbacks.Callback):
    """Looks at the clock where the first bad step begins."""

    bad = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Keras: a step begins."""
        if batch == BAD:
            self.bad = time.monotonic()


def fit(
    logdir: Path, urls: list[str], bad: int = 1, after: int = 3, **options: Any
) -> Any:
    """Trains a model, `bad` batches of which hold NaN, `after` more do not.

    Returns:
        The watch, when the first bad step began and the fit was over.
    """
    x, y = data()
    rows = np.arange((BAD + bad + after) * 32) % len(x)
    x, y = x[rows], y[rows]
    x[BAD * 32 : (BAD + bad) * 32] = np.nan
    watch, clock = GradWatch(logdir, notify=urls, **options), Clock()
    kept = {"verbose": 0, "batch_size": 32, "shuffle": False}
    classifier().fit(x, y, callbacks=[clock, watch], **kept)
    return watch, clock.bad, time.monotonic()


def test_a_nan_reaches_the_receiver_at_once(
    tmp_path: Path, receiver: Receiver
) -> None:
    """The finding, told in full, within 1.5 s, and that the run failed."""
    watch, bad, _ = fit(tmp_path, [receiver.url])
    (at, first), *_, (_, last) = receiver.told
    assert at - bad < 1.5
    found = watch.findings[0]
    assert first["title"].startswith(
        f"gradwatch: {found.rule} (critical) at step {BAD}"
    )
    for said in (
        f"Run: {watch.run.id}",
        f"Rule: {found.rule}",
        f"Subject: {found.subject}",
        f"Step: {BAD}",
        found.message,
        found.advice,
    ):
        assert said in first["message"]
    assert first["type"] == "failure"
    assert last["title"] == "gradwatch: The run failed"
    assert "Reason: nonfinite." in last["message"]
    assert watch.run.id in last["message"]


@pytest.mark.acceptance
@pytest.mark.autopsy
@pytest.mark.parametrize("policy", ["stop", "record"])
def test_ten_nans_reach_the_receiver(
    tmp_path: Path, receiver: Receiver, policy: str
) -> None:
    """In the median of ten fits, which may go on, it takes under 1.5 s."""
    seconds = []
    for _ in range(10):
        before = len(receiver.told)
        options: dict[str, Any] = {"on_nonfinite": policy, "after": 3000}
        _, bad, over = fit(tmp_path, [receiver.url], **options)
        seconds.append(receiver.told[before][0] - bad)
        assert policy == "stop" or over - bad > 1.5
        keras.backend.clear_session()
    print(policy, [round(s, 3) for s in sorted(seconds)])
    assert statistics.median(seconds) < 1.5


def test_receivers_that_fail_hold_nothing_up(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """One is dead, one never answers: a third is told at once all the same.

    The fit ends within the closing time, and no secret is anywhere.
    """
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hangs = f"json://127.0.0.1:{deaf.getsockname()[1]}/{SECRET}"
        urls = [hangs, dead(), receiver.url]
        watch, bad, over = fit(tmp_path, urls)
    assert 3.0 < over - bad < 6.5
    assert receiver.told[0][0] - bad < 1.5
    assert receiver.titles[-1] == "gradwatch: The run failed"
    for thread in threading.enumerate():  # it tries to the end of its time
        if thread.name == "gradwatch-notify":
            thread.join(15)
    for name in ("notify", "notify_2"):
        shown = f"`json://...` ({name})"
        for once in (
            f"{shown} did not take a notification.",
            f"Sink `{name}` failed",
            f"notifications could not be sent to {shown}.\n",
        ):
            assert caplog.text.count(once) == 1, once
    assert "notify_3" not in caplog.text
    assert SECRET not in caplog.text
    written = [f.read_bytes() for f in watch.path.rglob("*") if f.is_file()]
    assert len(written) > 4
    assert not any(SECRET.encode() in content for content in written)


def test_what_fails_twice_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After two answers of 500 the third try delivers; no secret is logged."""
    caplog.set_level(1)
    receiver = Receiver(failures=2)
    sink = sink_for(receiver.url)
    caplog.clear()
    try:
        sink.write(finding(1))
        sink.write(Beat(1.0, "running", 1, 2.0))  # in the pause: no try
        assert len(receiver.asked) == 1
        sink.close()
    finally:
        receiver.end()
    assert len(receiver.told) == 1
    _, second, third = receiver.asked
    assert third - second > 0.9
    (said,) = caplog.messages
    assert said.startswith("`json://...` (notify) did not take")
    assert SECRET not in caplog.text


def test_ten_nans_in_a_row_are_no_flood(
    tmp_path: Path, receiver: Receiver
) -> None:
    """Ten bad steps that are skipped make no more messages than findings."""
    options: dict[str, Any] = {"on_nonfinite": "skip", "max_skips": 20}
    watch, _, _ = fit(tmp_path, [receiver.url], bad=10, **options)
    serious = [f for f in watch.findings if f.severity != "info"]
    assert 1 <= len(receiver.told) <= min(len(serious), 6)
    assert not any("failed" in title for title in receiver.titles)


def test_a_flood_of_findings_is_summed_up(receiver: Receiver) -> None:
    """Six messages a minute; what is over goes into one at the end."""
    sink = sink_for(receiver.url)
    for number in range(18):
        sink.write(finding(number))
    assert len(receiver.told) == 6
    sink.close()
    assert receiver.titles[-1] == (
        "gradwatch: dead_layer (warning) at step 17, dense/kernel (and 11 more)"
    )
    assert len(receiver.told) == 7
    text = receiver.told[-1][1]["message"]
    assert "It is <dead>.\n\nWhat to do: Fix *it*." in text
    assert "- gradwatch: dead_layer (warning) at step 7, dense" in text


@pytest.mark.parametrize("phase", ["finished", "interrupted", "running"])
def test_what_can_wait_is_not_sent(receiver: Receiver, phase: Phase) -> None:
    """Nothing is sent of `info`, of readings and of an end without fault."""
    sink = sink_for(receiver.url)
    sink.write(finding(1, "info"))
    sink.write(Block.empty(0))
    sink.write(Beat(1.0, phase, 1, 2.0))
    sink.close()
    assert receiver.asked == []


def test_an_autopsy_is_told(receiver: Receiver) -> None:
    """Its headline and advice, in a message of its own."""
    sink = sink_for(receiver.url)
    autopsy = Autopsy("data", step=7, advice="Look at it.")
    sink.write(autopsy)
    ((_, told),) = receiver.told
    assert told["title"] == "gradwatch: Autopsy at step 7"
    assert f"{autopsy.headline()}\n\nLook at it." in told["message"]


def test_after_ten_minutes_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an error of the sink then, once."""
    sink = sink_for(dead())
    now = time.monotonic()
    sink.write(finding(1))
    monkeypatch.setattr(time, "monotonic", lambda: now + 601)
    beat = Beat(1.0, "running", 1, 2.0)
    with pytest.raises(ConnectionError, match="1 notification could not"):
        sink.write(beat)
    sink.write(beat)


@pytest.mark.parametrize(
    ("urls", "received"),
    [
        ([f"https://127.0.0.1/{SECRET}"], "'https://...'"),
        ([f"nosuch://{SECRET}"], "'nosuch://...'"),
        ([f"slack://{SECRET}"], "'slack://...'"),
        ([SECRET], "'...'"),
        ([""], "'...'"),
        (f"json://{SECRET}", "'str'"),
        ([7], "'a list of int'"),
        (7, "'int'"),
    ],
)
def test_bad_urls_are_refused(
    tmp_path: Path, urls: Any, received: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At construction, with what to do, and without the secret."""
    caplog.set_level(1)
    with pytest.raises(GradWatchError, match="`notify`: Expected") as caught:
        GradWatch(tmp_path, notify=urls)
    assert f"Received: {received}." in str(caught.value)
    assert "json://" in str(caught.value)
    assert SECRET not in str(caught.value) + caplog.text


def test_the_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who wants to be notified needs Apprise."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    GradWatch(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"gradwatch\[notify\]"):
        GradWatch(tmp_path, notify=["json://127.0.0.1/"])
