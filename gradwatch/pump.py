"""The pump: one thread from the device to rules, RunState and sinks.

It guarantees that records reach rules and each sink in order, that a Finding
reaches the sinks before the record it was found in, and that neither a slow
sink nor a faulty rule or sink delays or ends anything else. Faults are logged.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from gradwatch.interfaces import Rule
from gradwatch.outlet import Outlet, tallies
from gradwatch.records import (
    Anatomy,
    Autopsy,
    Beat,
    Block,
    Finding,
    Phase,
    Record,
    Run,
    Schema,
    explained,
)
from gradwatch.rules.folding import Folding
from gradwatch.runstate import RunState

__all__ = ["Pump"]

_log = logging.getLogger(__name__)

_CYCLE_SECONDS = 0.5
_BEAT_SECONDS = 5.0
_PROMISED_SECONDS = 15.0
_YOUNG_SECONDS = 10.0  # until then it beats at every cycle
_INBOX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Opened:
    """In the inbox: the step was traced, this is what its rows mean."""

    anatomy: Anatomy
    schema: Schema


@dataclass(frozen=True, slots=True)
class _Flush:
    """In the inbox: set `done` when everything before it was delivered."""

    done: threading.Event = field(default_factory=threading.Event)


class Pump:
    """The worker thread of one run.

    Args:
        run: the run.
        rules: judge every record; one that raises is not asked again.
        state: is folded from every record.
        outlets: take every record.
        drain: returns the next Block from the device or `None`.
        executions: returns how often the train function was called.
        alive: returns whether the fit still runs; asked now and then.
        left: called on the pump's thread when it does not.
        step: returns what `Tap.step` is.
    """

    def __init__(
        self,
        run: Run,
        rules: Sequence[Rule],
        state: RunState,
        outlets: Sequence[Outlet],
        drain: Callable[[], Block | None],
        executions: Callable[[], int],
        alive: Callable[[], bool] = lambda: True,
        left: Callable[[], None] = lambda: None,
        step: Callable[[], tuple[float, bool]] = lambda: (0.0, False),
    ) -> None:
        self.findings: list[Finding] = []
        self._run = run
        self._rules = list(rules)
        self._folding = Folding()
        self._state = state
        self._outlets = outlets
        self._drain = drain
        self._drained = threading.Lock()
        self._executions = executions
        self._alive = alive
        self._left = left
        self._step = step
        self._phase: Phase = "starting"
        self._inbox: deque[Record | _Opened | _Flush | int] = deque()
        self._read = 0  # executions whose readings were delivered
        self._wake = threading.Event()
        self._over = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._began = self._beaten = 0.0
        self._facts = _Opened(Anatomy(), Schema())
        self._costs: dict[str, float] = {}
        self._waiting = 0
        self._lost = 0
        self._faulty = False

    def start(self) -> None:
        """Starts the thread; a run may be started again after `stop`."""
        self._ending = False
        self._began, self._beaten = time.time(), 0.0
        self._inbox.append(self._facts)
        self.phase("starting")
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._work,
            args=(self._over, self._thread),
            name="gradwatch-pump",
            daemon=True,
        )
        self._thread.start()

    def opened(self, anatomy: Anatomy, schema: Schema) -> None:
        """Takes what the first trace has found out; any thread."""
        # Called inside a trace: the ring cannot be read here.
        self._phase = "running"
        self._inbox += (
            _Opened(anatomy, schema),
            Block.empty(len(schema.slots)),
            self._new_beat(self._executions()),
        )

    def put(self, record: Record | _Flush) -> None:
        """Takes a record; all readings so far come before it. Any thread."""
        self.drain()
        self._inbox.append(record)
        self._wake.set()

    def phase(self, phase: Phase) -> None:
        """Says what the trainer does from now on."""
        self._phase = phase
        self.put(self._new_beat(self._executions()))

    def spend(self, phase: str, seconds: float) -> None:
        """Counts what gradwatch itself took."""
        self._costs[phase] = self._costs.get(phase, 0.0) + seconds

    def drain(self) -> None:
        """Moves readings from the device into the inbox. Any thread."""
        with self._drained:
            # Counted before the ring is read: all but the last of these
            # executions have left their readings there.
            executions = self._executions()
            try:
                block = self._drain()
            except Exception:
                self._fault("gradwatch could not read its ring.")
                block = None
            if block is not None:  # of executions begun meanwhile, maybe
                executions = self._executions()
            if block is not None and self._waiting > _INBOX_BYTES:
                self._lost += 1
            elif block is not None:
                self._waiting += block.nbytes
                self._inbox.append(block)
            self._inbox.append(executions)  # behind what they have left

    def flush(self, seconds: float) -> bool:
        """Waits until all readings so far are judged; returns whether."""
        flush = _Flush()
        self.put(flush)
        return flush.done.wait(seconds)

    def stop(self, phase: Phase, reason: str, seconds: float) -> None:
        """Delivers what is left, says how the run ended and closes the sinks.

        Waits at most `seconds` in all; a sink that hangs is left to itself.
        From the pump's own thread it does not wait at all.
        """
        executions = self._executions()
        self._ending = True  # from here on nothing but the last beat
        self._phase = phase
        self.drain()
        last = self._new_beat(executions)
        self._inbox.append(replace(last, next=0.0, reason=reason))
        self._over.set()
        self._wake.set()
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Waits, at most so long, until a run that was stopped is closed."""
        deadline = time.monotonic() + seconds
        if self._thread in (None, threading.current_thread()):
            return
        self._thread.join(max(deadline - time.monotonic(), 0))
        for outlet in self._outlets:
            outlet.join(deadline - time.monotonic())

    def _work(
        self, over: threading.Event, previous: threading.Thread | None
    ) -> None:
        if previous is not None:
            previous.join()  # a rule may still hold it up; one at a time
        while not over.is_set():
            self._wake.wait(_CYCLE_SECONDS)
            self._wake.clear()
            began = time.thread_time()
            self.drain()
            self._empty_inbox()
            self.spend("judge", time.thread_time() - began)
            self._beat()
            if not self._alive():
                self._left()
        self._empty_inbox()
        for outlet in self._outlets:
            outlet.close()

    def _beat(self) -> None:
        now = time.time()
        young = now - self._began < _YOUNG_SECONDS
        due = young or now - self._beaten >= _BEAT_SECONDS
        if due and not self._ending:
            self._beaten = now
            self._deliver(self._new_beat(self._read))

    def _new_beat(self, executions: int) -> Beat:
        now = time.time()
        told = now, self._phase, executions, now + _PROMISED_SECONDS, ""
        dropped, errors, queued = tallies(self._outlets)
        dropped["pump"] = self._lost
        costs = {**self._costs, "write": sum(o.seconds for o in self._outlets)}
        return Beat(*told, dropped, errors, queued, costs, *self._step())

    def _empty_inbox(self) -> None:
        while self._inbox:
            item = self._inbox.popleft()
            try:
                self._take(item)
            except Exception:
                self._fault("gradwatch failed on a record.")

    def _take(self, item: Record | _Opened | _Flush | int) -> None:
        if isinstance(item, _Flush):
            item.done.set()
        elif isinstance(item, int):
            self._read = item
        elif isinstance(item, _Opened):
            self._open(item)
        elif isinstance(item, Autopsy):  # nothing for rules to judge
            self._send(item)
        else:
            if isinstance(item, Block):
                self._waiting -= item.nbytes
            self._deliver(item)

    def _open(self, item: _Opened) -> None:
        self._facts = item
        for rule in list(self._rules):
            with self._off_when_faulty(rule):
                rule.begin(item.anatomy, item.schema)
        self._state.begin(item.anatomy, item.schema)
        for outlet in self._outlets:
            outlet.open(self._run, item.schema)

    def _deliver(self, record: Record) -> None:
        found: list[Finding] = []
        for rule in list(self._rules):
            with self._off_when_faulty(rule):
                found += rule.check(record)
        for finding in self._folding(found):
            self._send(finding)
        self._send(record)

    def _send(self, record: Record) -> None:
        if isinstance(record, Finding):
            self.findings.append(record)
        elif isinstance(record, Autopsy):
            self.findings = explained(self.findings, record)
        self._state.fold(record)
        for outlet in self._outlets:
            outlet.put(record)

    @contextlib.contextmanager
    def _off_when_faulty(self, rule: Rule) -> Iterator[None]:
        try:
            yield
        except Exception:
            _log.exception("Rule `%s` failed and is off.", rule.name)
            self._rules.remove(rule)

    def _fault(self, what: str) -> None:
        if not self._faulty:
            _log.exception("%s Later faults of this kind are not logged.", what)
        self._faulty = True
