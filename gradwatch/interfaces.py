"""The two seams where other people's code plugs in: `Rule` and `Sink`.

Both are protocols: a class that has these members fits, without inheriting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gradwatch.records import (
    Anatomy,
    Finding,
    Record,
    Run,
    Schema,
    Severity,
)

__all__ = ["Rule", "Sink"]


class Rule(Protocol):
    """A deterministic machine that turns records into findings.

    No clock, no I/O, no model, no randomness. Findings must not depend on
    where the Blocks were cut. The properties may be plain class attributes.
    """

    @property
    def name(self) -> str:
        """In snake_case; the class name is the same in CamelCase."""

    @property
    def severity(self) -> Severity:
        """Severity of its findings, the highest if it has several."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the signals without which it cannot judge."""

    @property
    def meaning(self) -> str:
        """One sentence for the documentation and the alert."""

    @property
    def advice(self) -> str:
        """What to do, one or two sentences."""

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """Called before the first record and again on every new Schema.

        Before the first trace `schema` has no slots. What the rule already
        reported stays reported.
        """

    def check(self, record: Record) -> Iterator[Finding]:
        """Judges the next record of the run, in order.

        Blocks may have no rows: one without rows follows each `begin` that
        has a traced Schema, before the first step ran.
        """


class Sink(Protocol):
    """A place where records go. Runs in a thread of its own.

    Calls never overlap. An exception is logged once and counted; the sink
    stays in use. A sink that is slow loses its oldest Blocks, never Findings.
    """

    @property
    def name(self) -> str:
        """What it is called in metrics and messages; one of a kind in a run."""

    def open(self, run: Run, schema: Schema) -> None:
        """Called before the first record and again on every new Schema."""

    def write(self, record: Record) -> None:
        """Takes one record. A Finding comes before the Block that shows it."""

    def close(self) -> None:
        """Flushes and releases everything; twice is once.

        `open` may follow when the run goes on.
        """
