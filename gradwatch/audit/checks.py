"""The checks, and one audit with all of them.

A check is a function of a `Subject` that yields findings and measurements. It
asks the subject for values; it changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import tensorflow as tf

from gradwatch.audit.finite import finite
from gradwatch.audit.flow import flow
from gradwatch.audit.gradient import gradient
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.report import (
    SEVERITIES,
    AuditFinding,
    AuditReport,
    Measurement,
)
from gradwatch.audit.subject import Subject
from gradwatch.errors import GradWatchError

__all__ = ["CHECKS", "Check", "run"]

Check = Callable[[Subject], Iterator[AuditFinding | Measurement]]

CHECKS: tuple[Check, ...] = (flow, gradient, finite)
"""In the order in which they run."""


def run(
    thing: Any, inputs: Any, dtypes: tuple[str, ...], seed: int
) -> AuditReport:
    """Returns what the checks find; see `gradwatch.audit`."""
    began = time.perf_counter()
    subject = replace(subject_of(thing, inputs, seed), dtypes=dtypes)
    try:
        said = [told for check in CHECKS for told in check(subject)]
    except tf.errors.OpError as error:
        why = " ".join(str(error).split())
        raise GradWatchError(
            f"`{subject.name}` fails for inputs that it was tried with: {why} "
            "State what it takes: `inputs`."
        ) from error
    found = [told for told in said if isinstance(told, AuditFinding)]
    found.sort(key=lambda one: -SEVERITIES.index(one.severity))
    return AuditReport(
        subject=subject.name,
        kind=subject.kind,
        domain={
            one.name: str(one.domain)
            for one in subject.inputs
            if not one.weight
        },
        findings=tuple(found),
        measurements=tuple(m for m in said if isinstance(m, Measurement)),
        seconds=time.perf_counter() - began,
        source=subject.source,
    )
