"""The checks, and one audit with all of them.

A check is a function of a `Subject` that yields findings and measurements. It
asks the subject for values; it changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.audit.activation import activation
from gradwatch.audit.agreement import agreement
from gradwatch.audit.batches import batches
from gradwatch.audit.curvature import curvature
from gradwatch.audit.curves import curves
from gradwatch.audit.finite import finite
from gradwatch.audit.flow import flow
from gradwatch.audit.gradient import gradient
from gradwatch.audit.kinds import subject_of
from gradwatch.audit.minimum import minimum
from gradwatch.audit.report import (
    AuditFinding,
    AuditReport,
    Curve,
    Measurement,
)
from gradwatch.audit.stacked import stacked
from gradwatch.audit.subject import Subject
from gradwatch.audit.terms import terms
from gradwatch.audit.weights import weights
from gradwatch.errors import GradWatchError
from gradwatch.records import SEVERITIES

__all__ = ["CHECKS", "Check", "run"]

Check = Callable[[Subject], Iterator[AuditFinding | Measurement | Curve]]

CHECKS: tuple[Check, ...] = (
    flow,
    gradient,
    finite,
    curvature,
    agreement,
    minimum,
    batches,
    weights,
    activation,
    stacked,
    terms,
    curves,
)
"""In the order in which they run."""

_BEYOND = (curvature, minimum, batches, activation, stacked, curves)
"""Those that also try what was not stated, which code may refuse."""


def run(
    thing: Any,
    inputs: Any,
    dtypes: tuple[str, ...],
    seed: int,
    second_order: bool = False,
) -> AuditReport:
    """Returns what the checks find; see `gradwatch.audit`."""
    began = time.perf_counter()
    # What is not finite is looked for.
    with _scope_as_it_was(), np.errstate(all="ignore"):
        subject = replace(subject_of(thing, inputs, seed), dtypes=dtypes)
        subject = replace(subject, second_order=second_order)
        said = _all_told(subject)
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
        curves=tuple(c for c in said if isinstance(c, Curve)),
    )


@contextlib.contextmanager
def _scope_as_it_was() -> Iterator[None]:
    """Resets what `tf.map_fn` leaves in the variable scope if it fails.

    No strategy could be entered any more in this process. Read in tensorflow
    2.21 (python/ops/map_fn.py, map_fn).
    """
    scope = tf.compat.v1.get_variable_scope()
    before = scope.caching_device
    try:
        yield
    finally:
        scope._caching_device = before


def _all_told(subject: Subject) -> list[AuditFinding | Measurement | Curve]:
    try:
        return [told for check in CHECKS for told in _told(check, subject)]
    except tf.errors.OpError as error:
        why = " ".join(str(error).split())
        raise GradWatchError(
            f"`{subject.name}` fails for inputs that it was tried with: {why} "
            "State what it takes: `inputs`."
        ) from error


def _told(
    check: Check, subject: Subject
) -> Iterator[AuditFinding | Measurement | Curve]:
    try:
        yield from check(subject)
    except tf.errors.OpError as error:
        if check not in _BEYOND:
            raise
        why = " ".join(str(error).split())[:200]
        yield Measurement(f"{check.__name__}_not_judged", "", "", why)
