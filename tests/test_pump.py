"""The pump: order, and that nobody waits for a slow or faulty part."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch import GradWatch
from gradwatch.outlet import Outlet
from gradwatch.pump import Pump
from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Finding,
    Record,
    Run,
    Schema,
)
from gradwatch.rules import default_rules
from gradwatch.runstate import RunState
from gradwatch.signals import Slot
from tests.models import classifier, data

RUN = Run("r-1", "r", 0.0, "host", {}, {})
SCHEMA = Schema((Slot("loss"), Slot("nonfinite"), Slot("update_dropped")))


def _block(first: int, rows: int = 4) -> Block:
    steps = np.arange(first, first + rows)
    values = np.ones((rows, len(SCHEMA.slots)), np.float32)
    values[:, 1:] = 0
    return Block(steps, steps.astype(float), values, np.zeros(rows, np.bool_))


class Keeps:
    """A sink that keeps all records, and can hang or raise."""

    def __init__(self, name: str = "keeps") -> None:
        self.name = name
        self.records: list[Record] = []
        self.opened: list[Schema] = []
        self.closed = 0
        self.hangs = threading.Event()
        self.hangs.set()
        self.error: Exception | None = None

    def open(self, run: Run, schema: Schema) -> None:
        """Keeps the schema."""
        self.opened.append(schema)

    def write(self, record: Record) -> None:
        """Keeps, hangs or raises."""
        self.hangs.wait(60)
        if self.error:
            raise self.error
        self.records.append(record)

    def close(self) -> None:
        """Counts."""
        self.closed += 1


@pytest.fixture
def make() -> Iterator[Callable[..., Pump]]:
    """Makes pumps whose device is a list of Blocks; stops them in the end."""
    pumps: list[Pump] = []

    def build(
        blocks: list[Block],  # on the device as soon as the step is traced
        sinks: list[Keeps],
        rules: Any = (),
        executions: Callable[[], int] = lambda: 0,
    ) -> Pump:
        outlets = [Outlet(sink) for sink in sinks]
        pump: Pump

        def drain() -> Block | None:
            traced = pump._facts.schema.slots
            return blocks.pop(0) if blocks and traced else None

        pump = Pump(RUN, rules, RunState(RUN), outlets, drain, executions)
        pumps.append(pump)
        return pump

    yield build
    for pump in pumps:
        pump.stop("finished", "", 1.0)


def _until(what: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_records_arrive_in_order(make: Callable[..., Pump]) -> None:
    """Schema, blocks, what was put after them, and the last beat, in order."""
    sink = Keeps()
    pump = make([_block(0), _block(4)], [sink])
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(
        lambda: sum(len(r) for r in sink.records if isinstance(r, Block)) == 8
    )
    pump.stop("failed", "mine", 5.0)
    assert sink.opened == [Schema(), SCHEMA]
    blocks = [r for r in sink.records if isinstance(r, Block)]
    steps = np.concatenate([b.steps for b in blocks])
    assert steps.tolist() == list(range(8))
    last = sink.records[-1]
    assert isinstance(last, Beat)
    assert (last.phase, last.reason, last.next) == ("failed", "mine", 0)
    assert sink.closed == 1


def test_a_finding_comes_before_its_block(make: Callable[..., Pump]) -> None:
    """A sink hears of a bad step before it gets the Block that shows it."""
    sink = Keeps()
    bad = _block(0)
    bad.values[2] = (np.nan, 1, 1)
    pump = make([bad], [sink], default_rules())
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(lambda: pump.findings)
    pump.stop("finished", "", 5.0)
    kinds = [type(r).__name__ for r in sink.records if not isinstance(r, Beat)]
    assert kinds == ["Block", "Finding", "Block"]  # the first has no rows
    assert [f.first_step for f in pump.findings] == [2]


def test_a_hanging_sink_delays_nobody(make: Callable[..., Pump]) -> None:
    """Beats, rules and the other sink go on; stopping takes its own time."""
    hanging, fine = Keeps("hanging"), Keeps("fine")
    hanging.hangs.clear()
    bad = _block(0)
    bad.values[0] = (np.nan, 1, 1)
    pump = make([bad], [hanging, fine], default_rules())
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(lambda: sum(isinstance(r, Beat) for r in fine.records) >= 3)
    _until(lambda: pump.findings)
    assert [f.rule for f in pump.findings] == ["nonfinite_loss"]
    began = time.monotonic()
    pump.stop("finished", "", 1.0)
    assert time.monotonic() - began < 5
    assert fine.closed == 1
    hanging.hangs.set()
    _until(lambda: hanging.closed)
    assert [f.rule for f in hanging.records if isinstance(f, Finding)] == [
        "nonfinite_loss"
    ]


def test_training_does_not_wait_for_a_sink(tmp_path: Path) -> None:
    """A fit with a sink that hangs for a minute ends within seconds."""
    hanging = Keeps("hanging")
    hanging.hangs.clear()
    watch = GradWatch(tmp_path, sinks=[hanging])
    x, y = data()
    model = classifier()
    model.fit(x, y, verbose=0, callbacks=[watch])  # traces
    began = time.monotonic()
    model.fit(x, y, epochs=5, verbose=0, callbacks=[watch])
    assert time.monotonic() - began < 30
    assert watch.state["steps"] == 6 * 17
    hanging.hangs.set()


def test_a_full_queue_drops_the_oldest_blocks() -> None:
    """Blocks go, oldest first, and are counted; findings stay."""
    sink = Keeps()
    sink.hangs.clear()
    outlet = Outlet(sink, limit=10 * _block(0).nbytes)
    finding = Finding("a", "info", "", 0, 0, {}, (), "m", "a")
    outlet.put(_block(0))
    _until(lambda: not outlet._jobs)  # the first one is being written
    outlet.put(finding)
    for first in range(1, 21):
        outlet.put(_block(4 * first))
    sink.hangs.set()
    outlet.close()
    assert outlet.join(10)
    blocks = [r for r in sink.records if isinstance(r, Block)]
    assert outlet.dropped == 10
    assert [int(b.steps[0]) // 4 for b in blocks] == [0, *range(11, 21)]
    assert finding in sink.records


def test_dropped_blocks_are_a_finding(
    make: Callable[..., Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that loses readings is named, once."""
    monkeypatch.setattr("gradwatch.outlet._BYTES", 1)
    slow = Keeps("slow")
    slow.hangs.clear()
    outlet = Outlet(slow, limit=_block(0).nbytes)
    blocks = [_block(4 * i) for i in range(10)]
    drain = lambda: blocks.pop(0) if blocks else None  # noqa: E731
    rules = default_rules()
    pump = Pump(RUN, rules, RunState(RUN), [outlet], drain, lambda: 0)
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(lambda: pump.findings)
    slow.hangs.set()
    pump.stop("finished", "", 5.0)
    assert [(f.rule, f.subject) for f in pump.findings] == [
        ("lost_readings", "slow")
    ]


def test_a_faulty_sink_is_logged_once(
    make: Callable[..., Pump], caplog: pytest.LogCaptureFixture
) -> None:
    """Its exceptions are counted, and the next record reaches it again."""
    sink = Keeps("faulty")
    sink.error = OSError("disk full")
    pump = make([_block(0)], [sink])
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(lambda: pump._outlets[0].errors >= 3)
    sink.error = None
    pump.stop("finished", "", 5.0)
    assert isinstance(sink.records[-1], Beat)
    assert sink.records[-1].errors["faulty"] >= 3
    said = [r for r in caplog.records if "`faulty` failed" in r.getMessage()]
    assert len(said) == 1


def test_a_faulty_rule_is_switched_off(
    make: Callable[..., Pump], caplog: pytest.LogCaptureFixture
) -> None:
    """A rule that raises is named and no longer asked; others go on."""

    class Broken:
        name, severity, needs = "broken", "info", ()
        meaning = advice = ""

        def begin(self, anatomy: Anatomy, schema: Schema) -> None: ...

        def check(self, record: Record) -> Iterator[Finding]:
            raise ZeroDivisionError

    bad = _block(0)
    bad.values[0] = (np.nan, 1, 1)
    sink = Keeps()
    pump = make([bad], [sink], [Broken(), *default_rules()])
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(lambda: pump.findings)
    assert [f.rule for f in pump.findings] == ["nonfinite_loss"]
    assert len([r for r in caplog.records if "`broken`" in r.getMessage()]) == 1


def test_beats_come_while_no_step_ends(make: Callable[..., Pump]) -> None:
    """A run that traces for long is alive: each beat promises the next."""
    sink = Keeps()
    pump = make([], [sink])
    pump.start()
    _until(lambda: len(sink.records) >= 3)
    pump.phase("evaluating")
    _until(
        lambda: (
            isinstance(sink.records[-1], Beat)
            and sink.records[-1].phase == "evaluating"
        )
    )
    beats = [r for r in sink.records if isinstance(r, Beat)]
    assert beats[0].phase == "starting"
    assert all(10 < b.next - b.time < 20 for b in beats)


def test_the_last_beat_is_the_last(
    make: Callable[..., Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the threads run, no beat of a running run follows the last."""
    sink = Keeps()
    pump = make([], [sink])
    pump.start()
    _until(lambda: sink.records)
    at_once = pump._over.set

    def late() -> None:
        time.sleep(0.7)
        at_once()

    monkeypatch.setattr(pump._over, "set", late)
    pump.stop("finished", "", 5.0)
    beats = [r.phase for r in sink.records if isinstance(r, Beat)]
    assert beats[-1] == "finished"
    assert beats.count("finished") == 1


def test_never_two_threads_at_once(make: Callable[..., Pump]) -> None:
    """A run that starts again waits for a rule that still holds it up."""
    inside: list[int] = []
    most: list[int] = []

    class Slow:
        name, severity, needs = "slow", "info", ()
        meaning = advice = ""

        def begin(self, anatomy: Anatomy, schema: Schema) -> None: ...

        def check(self, record: Record) -> Iterator[Finding]:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.2)
            inside.pop()
            yield from ()

    sink = Keeps()
    pump = make([], [sink], [Slow()])
    for _ in range(3):
        pump.start()
        pump.opened(Anatomy(), SCHEMA)
        pump.stop("finished", "", 0.05)
    pump.start()
    pump.stop("failed", "", 20.0)
    assert max(most) == 1
    phases = [r.phase for r in sink.records if isinstance(r, Beat)]
    assert phases.count("finished") == 3
    assert phases[-1] == "failed"


def test_a_sink_is_opened_again_before_it_is_written(
    make: Callable[..., Pump],
) -> None:
    """After `close` nothing is written until the next `open`."""
    events: list[str] = []

    class Strict(Keeps):
        def open(self, run: Run, schema: Schema) -> None:
            events.append("open")

        def write(self, record: Record) -> None:
            events.append("write")

        def close(self) -> None:
            events.append("close")

    pump = make([], [Strict()])
    for _ in range(2):
        pump.start()
        pump.stop("finished", "", 5.0)
    after_close = [b for a, b in pairwise(events) if a == "close"]
    assert after_close == ["open"]
    assert events[0] == "open"
    assert events[-1] == "close"


class _Hurries:
    """A rule at whose first rows the trainer goes on, and drains by itself."""

    name = "hurries"
    severity: Any = "info"
    needs = ()
    meaning = "Made up."
    advice = "None."

    def __init__(self) -> None:
        self.calls = 1
        self.pump: Any = None

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if isinstance(record, Block) and len(record) and self.calls == 1:
            self.calls = 20
            self.pump.drain()
        yield from ()


def test_executions_count_with_their_readings(make: Any) -> None:
    """Rows that come while others are judged belong to later executions."""
    sink, hurries = Keeps(), _Hurries()
    rules = [*default_rules(), hurries]
    blocks = [_block(0), _block(4, 16)]
    pump = make(blocks, [sink], rules, lambda: hurries.calls)
    hurries.pump = pump
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    assert pump.flush(10)
    time.sleep(0.1)
    pump.stop("finished", "", 10)
    assert len(blocks) == 0
    assert [f.rule for f in pump.findings] == []


def test_executions_that_end_while_the_ring_is_read(make: Any) -> None:
    """Their rows are read, too: nothing is missing when no more come."""
    sink, calls = Keeps(), [1]

    class Slow(list[Block]):
        def pop(self, _: Any = 0) -> Block:
            calls[0] = 4
            return super().pop()

    blocks = Slow([_block(0)])
    pump = make(blocks, [sink], default_rules(), lambda: calls[0])
    pump.start()
    pump.opened(Anatomy(), SCHEMA)
    _until(lambda: not blocks)
    assert pump.flush(10)
    time.sleep(0.1)
    pump.stop("finished", "", 10)
    assert [b.executions for b in sink.records if isinstance(b, Beat)][-1] == 4
    assert [f.rule for f in pump.findings] == []
