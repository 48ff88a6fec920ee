"""Whether a function gives the same in a graph as without one.

What is computed in Python while it is traced (a counter, numpy's random
numbers, a branch on a value) stays as it was then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradwatch.audit.evaluation import evaluation, join
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.subject import Subject

__all__ = ["eagerly"]

_POINTS = 3
_RELATIVE = {"float64": 1e-5, "float32": 1e-3}


def eagerly(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Compares what `fit` computes with what `run_eagerly=True` does."""
    made = evaluation(subject, False)
    if made.eager:
        text = "it cannot be traced: `fit` fails without `run_eagerly=True`."
        yield Measurement("graph", "", "no", text)
        return
    points = subject.sample(_POINTS, salt=50)
    vectors = join(points)
    graph = made.outputs(vectors)
    if not np.array_equal(graph, made.outputs(vectors), equal_nan=True):
        return  # random
    for k in range(_POINTS):
        values = subject.tensors([v[k] for v in points], made.dtype)
        found = subject.outputs(values, made.dtype)
        flat = [np.ravel(tf.cast(t, tf.float64)) for t in found]
        eager = np.concatenate(flat)
        limit = _RELATIVE[made.dtype]
        sizes = np.abs(graph[k][np.isfinite(graph[k])])
        scale = sizes.max(initial=1e-6)
        if eager.shape == graph[k].shape and np.allclose(
            eager, graph[k], rtol=limit, atol=limit * scale, equal_nan=True
        ):
            continue
        worst = _worst(eager, graph[k])
        yield AuditFinding(
            check="graph_differs",
            severity="warning",
            subject="",
            message=(
                "In a graph, as `fit` computes it, the value is another one "
                f"than eagerly: {graph[k][worst]:.6g} instead of "
                f"{eager[worst]:.6g}. What Python computes while it is traced "
                "stays as it was then."
            ),
            source=subject.source,
            advice="Use operations of TensorFlow or `keras.ops` only.",
        )
        return


def _worst(one: Any, other: Any) -> int:
    """Where two arrays differ most: NaN and a number more than all else."""
    if one.shape != other.shape:
        return 0
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    apart = np.nan_to_num(np.abs(one - other), nan=np.inf)
    return int(np.argmax(np.where(same, 0.0, apart)))
