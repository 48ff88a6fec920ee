"""Messages that wait for one receiver: how many, in which order, when again.

It keeps a receiver from a flood, and a dead one from being asked all the time.
It has no clock and sends nothing. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Message", "Outbox", "joined"]

_PER_MINUTE = 6
_MINUTE = 60.0
_FIRST_PAUSE = 1.0  # seconds; doubles with every failure
_LONGEST_PAUSE = 60.0
_KEPT_SECONDS = 600.0
_LISTED = 10  # titles of further messages in one


@dataclass(frozen=True, slots=True)
class Message:
    """What a person is told.

    Attributes:
        title: one line.
        body: several, plain text.
        kind: what Apprise calls its type: `failure` for what is critical.
        time: seconds of a monotonic clock at which it was made.
    """

    title: str
    body: str
    kind: Literal["warning", "failure"]
    time: float


class Outbox:
    """Messages that wait, and when the next may go out.

    Critical ones go first, then the newest. Of at most six a minute the last
    takes all that wait, as a list. After a failure there is a pause of 1, 2,
    4 and so on to 60 s. `now` is always seconds of the messages' clock.
    """

    def __init__(self) -> None:
        self._waiting: list[Message] = []
        self._sent: list[float] = []
        self._pause = _FIRST_PAUSE
        self._again = 0.0

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    def add(self, message: Message) -> None:
        """Takes the newest message."""
        self._waiting.append(message)

    def due(self, now: float, last: bool = False) -> list[Message]:
        """Returns what is to be sent now, as one; none = nothing is.

        Args:
            now: see the class.
            last: nothing comes after this, so all that waits is due, whatever
                was sent before.
        """
        if now < self._again:
            return []
        self._sent = [time for time in self._sent if now - time < _MINUTE]
        free = _PER_MINUTE - len(self._sent)
        newest = list(reversed(self._waiting))
        ordered = sorted(newest, key=lambda message: message.kind != "failure")
        if last or free == 1:
            return ordered
        return ordered[:1] if free > 0 else []

    def delivered(self, messages: list[Message], now: float) -> None:
        """Strikes out what was `due`."""
        self._waiting = [m for m in self._waiting if m not in messages]
        self._sent.append(now)
        self.hurry()

    def failed(self, now: float) -> float:
        """Begins a pause after a try that failed; returns its seconds."""
        pause = self._pause
        self._again = now + pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        return pause

    def hurry(self) -> None:
        """Ends a pause; the next one is the shortest again."""
        self._pause, self._again = _FIRST_PAUSE, 0.0

    def give_up(self, now: float, after: float = _KEPT_SECONDS) -> int:
        """Strikes out what is that many seconds old; returns how many."""
        kept = [m for m in self._waiting if now - m.time < after]
        lost = len(self._waiting) - len(kept)
        self._waiting = kept
        return lost


def joined(messages: list[Message]) -> tuple[str, str]:
    """Returns title and body of one message that stands for several.

    Args:
        messages: at least one; the first is told in full.
    """
    first, *others = messages
    if not others:
        return first.title, first.body
    more = f"and {len(others)} more"
    listed = [f"- {message.title}" for message in others[:_LISTED]]
    if len(others) > _LISTED:
        listed.append(f"- and {len(others) - _LISTED} that are not listed")
    lines = [first.body, "", f"{more.capitalize()}:", *listed]
    return f"{first.title} ({more})", "\n".join(lines)
