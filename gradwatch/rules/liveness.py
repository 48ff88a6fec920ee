"""Liveness: is anything measured at all?"""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)

__all__ = ["LostReadings", "NoReadings"]

_EXECUTIONS = 3


class NoReadings:
    """The train function runs, but no reading arrives.

    Definition: a Beat counts at least 3 executions of the train function more
    than at the last reading (1 when the run has ended without any). The pump
    empties the ring before each Beat, so 2 of them are over for certain; the
    third may be the one that found no more data. Never an empty chart without
    a word.
    """

    name = "no_readings"
    severity: Severity = "critical"
    needs = ()
    meaning = "Training goes on but nothing is measured."
    advice = (
        "Something replaced the train function after training began "
        "(`compile`, `make_train_function(force=True)`), or measuring failed; "
        "the log says why."
    )

    def __init__(self) -> None:
        self._executions = 0
        self._step = 0
        self._rows = False
        self._any = False
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if isinstance(record, Block) and len(record):
            self._rows = self._any = True
            self._told = False
            self._step = int(record.steps[-1]) + 1
        elif isinstance(record, Beat):
            yield from self._beat(record)

    def _beat(self, beat: Beat) -> Iterator[Finding]:
        if self._rows:
            self._executions, self._rows = beat.executions, False
        silent = beat.executions - self._executions
        nothing = beat.phase == "finished" and silent and not self._any
        if self._told or not (silent >= _EXECUTIONS or nothing):
            return
        self._told = True
        yield Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=self._step,
            last_step=self._step,
            evidence={"executions_without_reading": silent},
            causes=(),
            message=(
                f"The train function was called {silent} times "
                "without a reading: gradwatch sees nothing of this training."
            ),
            advice=self.advice,
        )


class LostReadings:
    """A sink is too slow and loses readings.

    Definition: a Beat counts more Blocks dropped by a full queue than the one
    before. Told once for each sink; the counter goes on. The guard and the
    rules see every step all the same.
    """

    name = "lost_readings"
    severity: Severity = "warning"
    needs = ()
    meaning = "A sink is too slow and loses readings."
    advice = (
        "Look at the disk or the network behind this sink; a larger "
        "`every_steps` writes less."
    )

    def __init__(self) -> None:
        self._step = 0
        self._told: set[str] = set()

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if isinstance(record, Block) and len(record):
            self._step = int(record.steps[-1])
        if not isinstance(record, Beat):
            return
        for sink, blocks in record.dropped.items():
            if blocks and sink not in self._told:
                self._told.add(sink)
                yield Finding(
                    rule=self.name,
                    severity=self.severity,
                    subject=sink,
                    first_step=self._step,
                    last_step=self._step,
                    evidence={"dropped_blocks": blocks},
                    causes=(),
                    message=(
                        f"`{sink}` is too slow: its queue was full and "
                        f"{blocks} blocks of readings were dropped."
                    ),
                    advice=self.advice,
                )
