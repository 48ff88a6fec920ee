"""An activation: its range, its slope, and how deep a stack of it can be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwatch.audit.depth import LIMIT, Shape, Stack, moments, stack
from gradwatch.audit.evaluation import Evaluation, evaluation
from gradwatch.audit.report import AuditFinding, Curve, Measurement
from gradwatch.audit.subject import Subject

__all__ = ["activation"]

_FAR, _FARTHEST = 40.0, 1e4
_NEAR = 4.0
"""All but 6 in 100000 standard normal numbers lie within."""

_SHALLOW, _DEEP = 5, 30
"""Layers: fewer than most networks have; as many as only deep ones have.
The sigmoid comes to 15 with the gain that it deserves."""

_SCALED = 10
"""The same of one that a gain would mend, so that only its scale is unusual.
The hard sigmoid, with which ten layers are the end, has none."""

_GAINS = {"glorot": 1.0, "he": math.sqrt(2.0)}
"""Of the initializers of Keras, for layers of one width."""


def activation(
    subject: Subject,
) -> Iterator[AuditFinding | Measurement | Curve]:
    """Says what a stack of layers with this activation does to gradients."""
    if not _candidate(subject):
        return
    made = evaluation(subject, False)
    width = made.slices[-1].stop
    drawn = subject.generator(60).normal(size=(4, width))
    values = made.outputs(drawn)
    if values.shape != drawn.shape:
        return
    if not np.array_equal(values, made.outputs(drawn), equal_nan=True):
        return  # random
    if not _elementwise(made, drawn, values):
        yield from _mixing(subject, drawn, values)
        return
    shape = _shape(made, width)
    near = np.abs(shape.x) <= _NEAR
    if not np.isfinite([shape.value[near], shape.slope[near]]).all():
        return
    if _affine(shape):
        return
    seen = np.abs(shape.x) <= 6.0
    name = subject.inputs[0].name
    yield Curve(name, "", shape.x[seen], shape.value[seen], shape.slope[seen])
    yield from _about(shape)
    yield from _stacks(subject, shape)


def _candidate(subject: Subject) -> bool:
    """An activation, or a layer that may be one: no weights, one input."""
    if subject.kind not in ("activation", "layer") or len(subject.inputs) != 1:
        return False
    return subject.inputs[0].domain.kind == "real"


def _elementwise(made: Evaluation, drawn: Any, values: Any) -> bool:
    """Whether each number depends on its own input alone."""
    for place in {0, drawn.shape[1] // 2, drawn.shape[1] - 1}:
        moved = drawn.copy()
        moved[:, place] += 0.5
        changed = ~np.isclose(made.outputs(moved), values, rtol=1e-6)
        changed[:, place] = False
        if changed.any():
            return False
    return True


def _mixing(subject: Subject, drawn: Any, values: Any) -> Iterator[Measurement]:
    rows = values.reshape(-1, subject.inputs[0].domain.shape[-1])
    sums = np.allclose(rows.sum(-1), 1.0, atol=1e-3) and (rows >= 0).all()
    text = "depends on other numbers of the input"
    if sums:
        text = "adds up to 1 over the last axis: made for outputs"
    yield Measurement(
        "activation_not_judged", "", "", f"{text}, not judged in a stack."
    )


def _shape(made: Evaluation, width: int) -> Shape:
    """Values and derivatives, closely in the middle, far out on the sides."""
    sides = np.arange(6.25, _FAR + 0.1, 0.25)
    sides = np.concatenate([sides, np.geomspace(2 * _FAR, _FARTHEST, 9)])
    # Points at which a kink may lie tell nothing of its sides.
    x = np.concatenate([-sides[::-1], np.arange(-6.0, 6.0, 0.01) + 5e-3, sides])
    points = -(-len(x) // width)
    padded = np.resize(x, points * width).reshape(points, width)
    value = made.outputs(padded).ravel()[: len(x)]
    ones = np.ones_like(padded)
    slope = made.gradients(padded, ones).ravel()[: len(x)]
    known = np.isfinite(value) & np.isfinite(slope)
    if known[np.abs(x) <= _NEAR].all():
        x, value, slope = x[known], value[known], slope[known]
    return Shape(x, value, slope)


def _affine(shape: Shape) -> bool:
    """Whether it is a straight line: a scale, no activation."""
    slope = shape.slope
    return bool(np.ptp(slope) <= 1e-6 * max(np.abs(slope).max(), 1e-12))


def _about(shape: Shape) -> Iterator[Measurement]:
    value, slope = shape.value, shape.slope
    low, high = (_bound(shape, side) for side in (-1, 1))
    change = np.diff(value)
    still = 1e-9 * max(float(np.ptp(value)), 1e-12)
    monotone = bool((change >= -still).all() or (change <= still).all())
    ways = "monotone" if monotone else "not monotone"
    text = f"range; {ways}."
    yield Measurement("range", "", f"{low} to {high}", text)
    near = np.abs(shape.x) <= _NEAR
    least, most = float(slope[near].min()), float(slope[near].max())
    square, steep = moments(shape)
    text = f"derivative for inputs from -4 to 4; E[f'(z)²] is {steep:.4g}."
    value_of = f"{least:.3g} to {most:.3g}"
    yield Measurement("derivative", "", value_of, text)
    text = "gain of the weights that keeps the variance: 1/sqrt(E[f(z)²])."
    yield Measurement("gain", "", 1 / math.sqrt(max(square, 1e-300)), text)


def _bound(shape: Shape, sign: int) -> str:
    """The least or largest value; infinite if it still grows far out."""
    value = sign * shape.value
    outer = shape.x[shape.x <= min(-shape.x[0], shape.x[-1])]
    most = [
        float(value[np.abs(shape.x) <= far].max())
        for far in outer[[-5, -3, -1]]
    ]
    before, last = np.diff(most)
    # Each is the same factor further out: a logarithm grows by as much again,
    # what comes closer to a bound by less.
    if last > max(0.7 * before, 1e-6):
        return "infinity" if sign > 0 else "-infinity"
    tiny = abs(most[-1]) < 1e-6 * np.ptp(value)
    return "0" if tiny else f"{sign * most[-1]:.3g}"


def _stacks(
    subject: Subject, shape: Shape
) -> Iterator[AuditFinding | Measurement]:
    square, _ = moments(shape)
    if square <= 1e-300:
        return  # zero everywhere: `flow` tells
    deserved = stack(shape, 1 / math.sqrt(square))
    usual = {name: stack(shape, gain) for name, gain in _GAINS.items()}
    yield Measurement(
        "depth", "", deserved.layers,
        f"layers that gradients pass with this gain ({_told(deserved)}).",
    )  # fmt: skip
    best = max([deserved, *usual.values()], key=lambda one: one.layers)
    easiest = max(usual.values(), key=lambda one: one.layers)
    meant = _for_outputs(shape) or _passes(shape)
    if best.layers <= _SHALLOW and not meant:
        yield _finding(subject, "warning", best, "with any gain that is usual")
    elif (
        easiest.layers <= (_SCALED if deserved.layers > _DEEP else _SHALLOW)
        and not meant
    ):
        yield _finding(
            subject, "warning", easiest,
            "with the initializers of Keras (Glorot, He)",
            "Scale it, or initialise with a gain of "
            f"{1 / math.sqrt(square):.3g} (`VarianceScaling(gain ** 2)`).",
        )  # fmt: skip


def _for_outputs(shape: Shape) -> bool:
    """Positive, growing without end: a rate or a scale is made by it."""
    value = shape.value
    if value.min() < 0 or (np.diff(value) < -1e-9 * np.ptp(value)).any():
        return False
    near = np.abs(shape.x) <= _NEAR
    strict = value[near].min() > 0 and shape.slope[near].min() > 0
    return bool(strict and _bound(shape, 1) == "infinity")


def _passes(shape: Shape) -> bool:
    """Large numbers pass as they are: a shrinkage, as for sparse codes."""
    far = np.abs(shape.x) >= _FAR / 2
    return bool((np.abs(shape.slope[far] - 1) < 0.5).all())


def _told(one: Stack) -> str:
    if one.end == "stays":
        return "and more"
    return f"{one.end}: {one.factor:.3g} times as long each layer"


def _finding(
    subject: Subject, severity: Any, one: Stack, how: str, advice: str = ""
) -> AuditFinding:
    power = "1e-6" if one.end == "vanishing" else "1e6"
    return AuditFinding(
        check=one.end,
        severity=severity,
        subject="",
        message=(
            f"In a stack of {one.layers} layers {how}, gradients become "
            f"{power} times as long: {one.factor:.3g} times in each."
        ),
        values={"layers": one.layers, "factor": one.factor, "limit": LIMIT},
        source=subject.source,
        advice=advice
        or "Normalise between the layers, add residuals, or use it in few.",
    )
