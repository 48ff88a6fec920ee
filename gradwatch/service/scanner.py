"""Looks at the runs in a thread of its own, so that a dead disk stops nobody.

Who wants to know of the runs waits for a look of at most a second ago; all
that wait share one. Without anybody asking it looks now and then, so that the
service knows whether it still can. Must not import keras or tensorflow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gradwatch.service.runs import Runs, Seen

__all__ = ["Scanner", "Stuck", "View"]

_log = logging.getLogger(__name__)

_FRESH = 1.0  # seconds for which a look is shared
_EVERY = 5.0  # seconds after which it looks although nobody asks
_PATIENCE = 5.0  # seconds; Prometheus gives up after 10 by default
_ENDING = 2.0  # seconds that the end of the service waits for a look
_STUCK = 20.0  # seconds without a look that has ended


class Stuck(Exception):
    """The run directories cannot be read, and nobody knows for how long."""


class View(NamedTuple):
    """What a look has found.

    Attributes:
        seen: the runs, the newest first.
        errors: reason -> run directories not read so far.
        problems: the same, of this look alone.
        room: root -> bytes that can still be written there.
        ended: when the look had ended, `time.monotonic()`.
    """

    seen: Sequence[Seen] = ()
    errors: Mapping[str, int] = {}
    problems: Mapping[str, int] = {}
    room: Mapping[str, int] = {}
    ended: float = 0.0


class Scanner:
    """The thread that looks at the runs.

    Args:
        runs: looked at by this thread only.

    Attributes:
        last: what the last look has found; an empty View before the first.
    """

    def __init__(self, runs: Runs) -> None:
        self.last = View()
        self._runs = runs
        self._asked = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[
            tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]
        ] = []
        self._alive = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look."""
        self._alive = time.monotonic()
        # A daemon: a read that never returns must not keep the process.
        self._thread = threading.Thread(
            target=self._work, name="gradwatch-scanner", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; leaves one to itself whose look takes too long."""
        self._over.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join(_ENDING)

    @property
    def stuck(self) -> bool:
        """Whether it has not looked for so long that something is wrong."""
        return time.monotonic() - self._alive > _STUCK

    async def view(self) -> View:
        """Returns what a look of at most a second ago has found.

        Raises:
            Stuck: there is none in time.
        """
        if time.monotonic() - self.last.ended < _FRESH:
            return self.last
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        waits = loop, done
        with self._lock:
            self._waiting.append(waits)
            self._asked.set()
        try:
            await asyncio.wait_for(done, _PATIENCE)
        except TimeoutError:
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(waits)
            raise Stuck from None
        return self.last

    def _work(self) -> None:
        while not self._over.is_set():
            self._asked.clear()
            try:
                self._look()
            except Exception:
                _log.exception("The run directories could not be read.")
            if not self._over.is_set():
                self._asked.wait(_EVERY)

    def _look(self) -> None:
        seen = self._runs.look()
        errors, before = self._runs.errors(), self.last.errors
        new = {
            reason: n - before.get(reason, 0) for reason, n in errors.items()
        }
        problems = {reason: n for reason, n in new.items() if n}
        room = self._runs.room()
        self._alive = time.monotonic()
        with self._lock:
            self.last = View(seen, errors, problems, room, self._alive)
            waiting, self._waiting = self._waiting, []
            self._asked.clear()  # who has asked meanwhile is answered, too
        for loop, done in waiting:
            # Who asked may have left, and its loop may be closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, done)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
