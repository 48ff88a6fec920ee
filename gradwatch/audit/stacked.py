"""A layer that can be stacked: what one does to the length of gradients.

The length of a gradient behind the layer, by that before it, at its initial
weights and normal inputs: a stack of such layers multiplies these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np

from gradwatch.audit.depth import LIMIT
from gradwatch.audit.domain import Domain
from gradwatch.audit.evaluation import evaluation, join
from gradwatch.audit.report import AuditFinding, Measurement
from gradwatch.audit.subject import Subject

__all__ = ["stacked"]

_POINTS = 8
_VANISHING, _EXPLODING = 5, 12
"""Layers. Attention with the initial weights of Keras has a factor of 0.2, for
it is made for a residual: 9 layers. Blocks with a residual have 1.4: 40."""


def stacked(subject: Subject) -> Iterator[AuditFinding | Measurement]:
    """Says how deep a stack of a layer with kernels can be."""
    if subject.kind != "layer" or isinstance(subject.original, keras.Model):
        return
    arguments = [one for one in subject.inputs if not one.weight]
    kernels = [one for one in subject.inputs if one.weight]
    if len(arguments) != 1 or arguments[0].domain.whole:
        return
    if not any(len(one.domain.shape) > 1 for one in kernels):
        return
    factor = _factor(subject, arguments[0].domain)
    if not 0 < factor < np.inf:
        return
    text = "length of a gradient behind one such layer, by that before it."
    yield Measurement("layer_factor", "", factor, text)
    growth = abs(math.log(factor))
    layers = math.ceil(math.log(LIMIT) / growth) if growth > 1e-3 else 10**6
    most = _VANISHING if factor < 1 else _EXPLODING
    if layers > most:
        return
    yield AuditFinding(
        check="vanishing" if factor < 1 else "exploding",
        severity="warning",
        subject="",
        message=(
            f"Each such layer makes gradients {factor:.3g} times as long: by "
            f"{'1e-6' if factor < 1 else '1e6'} in a stack of {layers}."
        ),
        values={"layers": layers, "factor": factor},
        source=subject.source,
        advice="Initialise with variance 1 / inputs (Glorot, LeCun; He for "
        "ReLU), and scale sums of several branches.",
    )


def _factor(subject: Subject, domain: Domain) -> float:
    """How much longer gradients become, NaN if shapes differ."""
    made = evaluation(subject, False)
    points = subject.sample(_POINTS, 90)
    random = subject.generator(91)
    for k, one in enumerate(subject.inputs):
        shape = points[k].shape
        # As it is at first, not around it.
        points[k] = (
            np.broadcast_to(one.value, shape)
            if one.weight
            else random.normal(size=shape)
        )
    vectors = join(points)
    width = int(np.prod(domain.shape))
    if made.results(vectors) != width:
        return math.nan
    upstream = random.normal(size=(_POINTS, width))
    slopes = made.gradients(vectors, upstream)[:, made.slices[0]]
    with np.errstate(all="ignore"):
        lengths = [np.linalg.norm(v, axis=1) for v in (slopes, upstream)]
        return float(np.exp(np.mean(np.log(lengths[0] / lengths[1]))))
