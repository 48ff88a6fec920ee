"""Inputs that no domain holds: NaN among them, a batch of one example."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradwatch.audit.culprit import culprit
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.running import Running, running
from gradwatch.audit.subject import Subject

__all__ = ["alone", "hidden"]

_DROPPED = (
    "A mask that uses `where` or a comparison drops it. If that is meant, all "
    "is well; if not, bad data goes by unseen."
)


def hidden(subject: Subject, run: Running) -> Iterator[AuditFinding]:
    """Yields the prediction of which NaN is turned into a finite loss."""
    usual = [value[0] for value in subject.sample(1, salt=3)]
    if subject.kind != "loss" or not any(map(np.any, run(usual).slopes)):
        return
    for i in subject.trained:
        one = subject.inputs[i]
        if one.weight or not usual[i].size or not run(usual).finite:
            continue
        point = [np.array(value) for value in usual]
        point[i].flat[0] = np.nan
        if run(point).finite:
            yield AuditFinding(
                check="nan_hidden",
                severity="info",
                subject=one.name,
                message=f"NaN in `{one.name}` gives a finite value and a "
                "finite gradient.",
                source=subject.source,
                advice=_DROPPED,
            )


def alone(subject: Subject, training: bool) -> Iterator[Measurement]:
    """Yields that it is not finite for a batch of one, and why."""
    sizes = {one.domain.shape[:1] for one in subject.inputs if not one.weight}
    if len(sizes) != 1 or not max(sizes):
        return
    dtype = subject.own_dtype
    whole = running(subject, dtype, training)
    run = running(subject, dtype, training, "graph", 1)
    if run is None or whole is None:
        return
    usual = [value[0] for value in subject.sample(1, salt=3)]
    point = run.cut(usual)
    if run(point).finite or not whole(usual).finite:
        return
    by = culprit(run, point)
    why = f": `{by.operation}`, {by.source or subject.source}" if by else ""
    text = f"a batch of one example, a last one say, is not finite{why}."
    yield Measurement("batch_of_one", "", "NaN or Inf", text)
