"""Which messages go out when."""

from __future__ import annotations

from typing import Literal

from gradwatch.sinks.outbox import Message, Outbox, joined


def message(
    number: int, kind: Literal["warning", "failure"] = "warning"
) -> Message:
    """Returns a message made at that second."""
    return Message(f"title {number}", f"body {number}", kind, float(number))


def filled(count: int) -> Outbox:
    """Returns an outbox in which so many messages wait."""
    outbox = Outbox()
    for number in range(count):
        outbox.add(message(number))
    return outbox


def test_a_flood_is_summed_up() -> None:
    """Of 17 messages five go out alone, the sixth stands for all others."""
    outbox, sizes = filled(17), []
    while due := outbox.due(20.0):
        sizes.append(len(due))
        outbox.delivered(due, 20.0)
    assert sizes == [1, 1, 1, 1, 1, 12]
    assert len(outbox) == 0
    outbox.add(message(21))
    assert outbox.due(79.0) == []  # the minute is not over
    assert outbox.due(80.5) == [message(21)]


def test_critical_ones_go_first_then_the_newest() -> None:
    """After an outage the newest is told first, but for critical ones."""
    outbox = Outbox()
    for number, kind in enumerate(("failure", "warning", "failure", "warning")):
        outbox.add(message(number, kind))  # type: ignore[arg-type]
    order = []
    while due := outbox.due(9.0):
        order += [int(m.time) for m in due]
        outbox.delivered(due, 9.0)
    assert order == [2, 0, 3, 1]


def test_pauses_double_up_to_a_minute() -> None:
    """Nothing is due in a pause; a delivery makes the next pause short."""
    outbox, now, pauses = filled(2), 0.0, []
    for _ in range(8):
        assert outbox.due(now)
        pauses.append(outbox.failed(now))
        assert not outbox.due(now + pauses[-1] - 0.01)
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    outbox.delivered(outbox.due(now), now)
    assert outbox.failed(now) == 1


def test_the_last_message_takes_all() -> None:
    """At the end all that waits is due, in one, but not in a pause."""
    outbox = filled(9)
    for _ in range(6):
        outbox.delivered(outbox.due(10.0)[:1], 10.0)
    assert outbox.due(10.0) == []
    assert len(outbox.due(10.0, last=True)) == 3
    outbox.failed(10.0)
    assert outbox.due(10.0, last=True) == []
    outbox.hurry()
    assert len(outbox.due(10.0, last=True)) == 3


def test_old_ones_are_given_up() -> None:
    """What is ten minutes old is struck out and counted."""
    outbox = filled(3)
    assert outbox.give_up(599.0) == 0
    assert outbox.give_up(601.5) == 2
    assert len(outbox) == 1


def test_several_are_told_as_one() -> None:
    """The first in full, ten by their titles, the rest by its number."""
    assert joined([message(1)]) == ("title 1", "body 1")
    title, body = joined([message(n) for n in range(13)])
    assert title == "title 0 (and 12 more)"
    lines = body.splitlines()
    assert lines[:3] == ["body 0", "", "And 12 more:"]
    assert lines[3:13] == [f"- title {n}" for n in range(1, 11)]
    assert lines[13:] == ["- and 2 that are not listed"]
