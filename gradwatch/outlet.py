"""An outlet: one sink, its bounded queue and its thread.

Records arrive in order. When the queue is full its oldest Blocks are dropped
and counted; Findings, Epochs and Beats are not. An exception of the sink is
logged once and counted, and the sink gets the next record all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gradwatch.interfaces import Sink
from gradwatch.records import Block, Record, Run, Schema

__all__ = ["Outlet", "tallies"]

_log = logging.getLogger(__name__)

_BYTES = 64 * 2**20


class Outlet:
    """Runs a sink behind a queue.

    Args:
        sink: the sink; its calls never overlap.
        limit: bytes of Blocks that may wait.

    Attributes:
        dropped: Blocks dropped so far.
        errors: exceptions raised by the sink so far.
        seconds: of a core, that the sink took so far.
    """

    def __init__(self, sink: Sink, limit: int = _BYTES) -> None:
        self.sink = sink
        self.dropped = 0
        self.errors = 0
        self.seconds = 0.0
        self._limit = limit
        self._bytes = 0
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def queued(self) -> int:
        """Records that wait for the sink."""
        return len(self._jobs)

    def open(self, run: Run, schema: Schema) -> None:
        """Queues `sink.open`."""
        self._add(lambda: self.sink.open(run, schema), 0, closing=False)

    def put(self, record: Record) -> None:
        """Queues `sink.write`. Never waits for the sink."""
        size = record.nbytes if isinstance(record, Block) else 0
        self._add(lambda: self.sink.write(record), size)

    def close(self) -> None:
        """Queues `sink.close`; the thread ends when the queue is empty."""
        self._add(self.sink.close, 0, closing=True)

    def join(self, seconds: float) -> bool:
        """Waits for the thread's end after `close`; returns whether it came."""
        with self._ready:
            return self._ready.wait_for(
                lambda: self._thread is None, max(seconds, 0)
            )

    def _add(
        self, job: Callable[[], None], size: int, closing: bool | None = None
    ) -> None:
        with self._ready:
            if closing is not None:
                self._closing = closing
            self._jobs.append((job, size))
            self._bytes += size
            if self._bytes > self._limit:
                self._drop_oldest()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work,
                    name=f"gradwatch-{self.sink.name}",
                    daemon=True,
                )
                self._thread.start()
            self._ready.notify_all()

    def _drop_oldest(self) -> None:
        kept: deque[tuple[Callable[[], None], int]] = deque()
        for job, size in self._jobs:
            if size and self._bytes > self._limit:
                self._bytes -= size
                self.dropped += 1
            else:
                kept.append((job, size))
        self._jobs = kept

    def _work(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    self._thread = None
                    self._ready.notify_all()
                    return
                job, size = self._jobs.popleft()
                self._bytes -= size
            began = time.thread_time()
            try:
                job()
            except Exception:
                if not self.errors:
                    _log.warning(
                        "Sink `%s` failed; training goes on, later failures "
                        "of it are only counted.",
                        self.sink.name,
                        exc_info=True,
                    )
                self.errors += 1
            self.seconds += time.thread_time() - began


def tallies(outlets: Sequence[Outlet]) -> Iterator[dict[str, int]]:
    """Yields what is dropped, failed and queued, each by the sink's name."""
    for name in ("dropped", "errors", "queued"):
        yield {o.sink.name: getattr(o, name) for o in outlets}
