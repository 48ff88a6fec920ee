"""Direct notification: what cannot wait for a scrape, sent by Apprise.

One sink for each receiver, so that one which hangs holds up no other. Nothing
of a URL but its scheme is ever shown: tokens may be anywhere in it.

Apprise (the extra `[notify]`) is loaded only where a receiver is wanted.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn

from gradwatch.errors import GradWatchError, expected
from gradwatch.records import Autopsy, Beat, Finding, Record, Run, Schema
from gradwatch.sinks.outbox import Message, Outbox, joined

if TYPE_CHECKING:
    import apprise

__all__ = ["NotifySink", "notify_sinks"]

_log = logging.getLogger("gradwatch")

_CLOSING_SECONDS = 4.0  # of the 5 that the end of a fit waits for all sinks
_TEXT = 1500  # characters of message or advice
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,19}://)(?=.)")
_LOGGERS = ("apprise", "urllib3.connectionpool")
"""They log paths, some of them URLs."""

_silent: ContextVar[bool] = ContextVar("gradwatch_silent", default=False)


class NotifySink:
    """Tells one receiver of findings, autopsies and a failed end.

    Findings whose severity is `info` are left out. What cannot be delivered is
    tried again for ten minutes, and when the run ends for 4 s.

    Args:
        receiver: has the one service to send by.
        name: names the sink; one of a kind in a run.
        shown: how the receiver is called in logs, without its secrets.
    """

    def __init__(
        self, receiver: apprise.Apprise, name: str, shown: str
    ) -> None:
        self.name = name
        self._receiver = receiver
        self._shown = shown
        self._outbox = Outbox()
        self._run = ""
        self._ended = False
        self._warned = False

    def open(self, run: Run, schema: Schema) -> None:
        """Takes the run's name for what is told."""
        self._run = f"{run.id} on {run.host}"
        self._ended = False

    def write(self, record: Record) -> None:
        """Sends what is due; each record is an occasion to try again.

        Raises:
            ConnectionError: what has waited for ten minutes was given up.
        """
        message = self._message(record)
        if message is not None:
            self._outbox.add(message)
        now = time.monotonic()
        lost = self._outbox.give_up(now)
        self._send(self._outbox.due(now))
        self._complain(lost)

    def close(self) -> None:
        """Sends all that waits as one message.

        Raises:
            ConnectionError: it could not.
        """
        self._outbox.hurry()
        end = time.monotonic() + _CLOSING_SECONDS
        while len(self._outbox):
            pause = self._send(self._outbox.due(time.monotonic(), last=True))
            if time.monotonic() + pause >= end:
                break
            time.sleep(pause)
        self._complain(self._outbox.give_up(time.monotonic(), after=0.0))

    def _send(self, messages: list[Message]) -> float:
        """Sends messages as one; returns the seconds to wait if it failed."""
        if not messages:
            return 0.0
        title, body = joined(messages)
        with _silence():
            try:
                taken = bool(
                    self._receiver.notify(
                        body=body,
                        title=title,
                        notify_type=messages[0].kind,
                        body_format="text",
                    )
                )
            except Exception:  # its text may hold the URL
                taken = False
        now = time.monotonic()
        if taken:
            self._outbox.delivered(messages, now)
            return 0.0
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s did not take a notification. Training goes on, and it is "
                "tried again for ten minutes; this is said once.",
                self._shown,
            )
        return self._outbox.failed(now)

    def _complain(self, lost: int) -> None:
        if lost:
            told = f"{lost} notification{'s' if lost > 1 else ''}"
            raise ConnectionError(f"{told} could not be sent to {self._shown}.")

    def _message(self, record: Record) -> Message | None:
        """Returns what a person is to know of a record, if anything."""
        if isinstance(record, Finding) and record.severity != "info":
            return self._told(
                f"{record.rule} ({record.severity})",
                record.first_step,
                {"Rule": record.rule, "Subject": record.subject},
                f"{record.message[:_TEXT]}\n\nWhat to do: "
                f"{record.advice[:_TEXT]}",
                critical=record.severity == "critical",
            )
        if isinstance(record, Autopsy):
            said = f"{record.headline()[:_TEXT]}\n\n{record.advice[:_TEXT]}"
            facts = {"Subject": record.layer}
            return self._told("Autopsy", record.step, facts, said.rstrip())
        if isinstance(record, Beat) and record.phase == "failed":
            if self._ended:
                return None
            self._ended = True
            return self._told(
                "The run failed", -1, {}, f"Reason: {record.reason}.", True
            )
        return None

    def _told(
        self,
        what: str,
        step: int,
        facts: dict[str, str],
        text: str,
        critical: bool = False,
    ) -> Message:
        """Returns a message; a step of -1 is none."""
        at = f" at step {step}" if step >= 0 else ""
        subject = facts.get("Subject")
        where = f", {subject}" if subject else ""
        noticed = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        steps = {"Step": str(step)} if step >= 0 else {}
        shown = {"Run": self._run, **facts, **steps, "Noticed": noticed}
        lines = [f"{name}: {value}" for name, value in shown.items() if value]
        return Message(
            f"gradwatch: {what}{at}{where}",
            "\n".join([*lines, "", text]),
            "failure" if critical else "warning",
            time.monotonic(),
        )


def notify_sinks(urls: Sequence[str]) -> list[NotifySink]:
    """Returns a sink for each Apprise URL.

    Raises:
        GradWatchError: Apprise cannot use a URL.
        ModuleNotFoundError: Apprise is not installed.
    """
    if not urls:
        return []
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`notify` needs {error.name}, which is not installed. Install it, "
            "for example with: pip install 'gradwatch[notify]'",
            name=error.name,
        ) from error
    asset = apprise.AppriseAsset(app_id="gradwatch", app_desc="gradwatch")
    sinks = []
    for number, url in enumerate(urls, start=1):
        receiver = apprise.Apprise(asset=asset)
        with _silence(), warnings.catch_warnings():
            # Its services are loaded now; some import what is deprecated.
            warnings.simplefilter("ignore")
            service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            _refuse(number, url)
        receiver.add(service)
        name = "notify" if number == 1 else f"notify_{number}"
        sinks.append(NotifySink(receiver, name, f"`{_shown(url)}` ({name})"))
    return sinks


def _refuse(number: int, url: str) -> NoReturn:
    raise GradWatchError(
        expected(
            "notify",
            "URLs of services that Apprise knows, complete with what they need",
            _shown(url),
            f"It is number {number}. A webhook is json://host/path, or "
            "jsons://host/path with TLS; the command `apprise` tries a URL, "
            "and its documentation lists all services.",
        )
    )


def _shown(url: str) -> str:
    """A URL without its secrets: its scheme."""
    scheme = _SCHEME.match(url)
    return f"{scheme[1] if scheme else ''}..."


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Lets Apprise and its HTTP client log nothing meanwhile, here."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_heard)  # twice is once
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _heard(_: logging.LogRecord) -> bool:
    return not _silent.get()
