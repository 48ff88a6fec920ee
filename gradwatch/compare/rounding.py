"""By how much two readings may differ, and it is rounding.

The same numbers, added in another order, by other kernels, threads or machines,
have other last digits. How far that reaches depends on what was measured:

- A **loss** is continuous in data and weights. The error of a sum of n terms
  is about `u * sqrt(n)` of the sum of their sizes (Higham & Mary 2019, A new
  approach to probabilistic rounding error analysis), u = 2^-24 in float32. Half
  of the digits, `sqrt(u)` = 2.4e-4, are lost with n = 1.7e7, more than a loss
  adds up.
- A **gradient** jumps where a ReLU or a max pooling chooses: the last digit
  decides between values that are as good as equal.
- Either **grows** from step to step: training near its largest stable learning
  rate multiplies a difference, and a jump of the gradient is one of the loss
  one step later.
- What goes to nothing **keeps its errors**: a loss that is learned is still the
  difference of numbers as large as at the beginning.
- What was **given** (the batch) is the same numbers on both sides, measured by
  one sum. What is **exact** (settings, counts, flags) is not computed at all.

Measured between TensorFlow's kernels and XLA's, 1 and 4 threads, float32,
float16 and bfloat16, on eight models of 100 to 336 steps (2026-11-27): at the
first step losses differ by up to 4e-7 (6e-5 in float16, 5e-4 in bfloat16),
gradients of variables by 2e-3 (2e-2 in both), 5e-7 where nothing is pooled.
Where one passed its limit, a loss differed by 1.2 times the largest difference
before, a gradient by 19 times; with 10 steps between by 18 and 90 times, with
20 by 110 and 260. Then 60 healthy programs of the zoo ran with 1 thread, and
with 4 and without oneDNN's kernels: 59 were the same, or so by rounding; one
loss of 8e-5 was not, which led to what is said of errors that stay. 24 of them
under XLA were, too, but for one with dropout. 34 faulty programs were told from
their fixed twins, all of them. numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gradwatch.signals import SIGNALS, Slot

__all__ = ["KINDS", "SAME", "Kind", "kind", "least", "limits", "scaled", "unit"]

Kind = Literal["given", "exact", "loss", "gradient"]

KINDS: tuple[Kind, ...] = ("given", "exact", "loss", "gradient")
"""In the order in which one is the cause of the next."""

SAME = 8
"""Steps that were the same to the bit: the kernels are the same, too."""

_GIVEN = 1e-5
_EXACT = 1e-5
_LOSS = 2.0**-12  # the square root of u
_GRADIENT = 1e-2
_SUDDEN = 2.0**-16  # of a loss, where kernels have been the same before
_UNITS_OF_LOSS = 1.0  # roundings of a lower precision
_UNITS_OF_GRADIENT = 64.0
_LOSS_GROWTH = 8.0  # of the largest difference before, in a step
_GRADIENT_GROWTH = 64.0
_GROWTH = 1.25  # for each step more between two rows
_FREE = 1e-2  # such a difference decides where a schedule looks at the loss

_PRECISIONS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
_TENSOR_FLOAT = 2.0**-11  # what GPUs multiply float32 in: TensorFloat-32
_SINGLE = 2.0**-24

_NORMS = (
    "variable_gradient_norm",
    "gradient_norm",
    "applied_gradient_norm",
    "clip_factor",
    "optimizer_gradient_norm",
    "optimizer_applied_gradient_norm",
    "optimizer_clip_factor",
)
_SETTINGS = (
    "learning_rate",
    "optimizer_learning_rate",
    "loss_scale",
    "optimizer_step",
    "rollback_steps",
)
_LOSSES = ("loss", "loss_component", "raw_loss_component")
_EXTENT = ("batch_min", "batch_max", "batch_mean", "batch_std")


def kind(slot: Slot) -> Kind | None:
    """Returns how a slot is judged; `None` where it says nothing of its own.

    Times are never the same, what else X-rays measure follows from what every
    step does, and what parts of a loss do not explain from these parts.
    """
    signal, subject = slot
    names = subject.split("/")
    given = signal.startswith("batch_") and names[0] != "predictions"
    if signal == "examples" or given:
        return "given"
    known = SIGNALS.get(signal)
    if signal in _SETTINGS or (known is not None and known.unit == "flag"):
        return "exact"
    if signal in _LOSSES and names[-1] != "unexplained":
        return "loss"
    return "gradient" if signal in _NORMS else None


def unit(devices: Iterable[str], dtypes: Iterable[str]) -> float:
    """Returns the unit roundoff of the least precise arithmetic.

    Args:
        devices: what was computed on, see `Anatomy.mode`.
        dtypes: what layers compute in.
    """
    found = [_PRECISIONS.get(dtype, _SINGLE) for dtype in dtypes]
    if any(device != "CPU" for device in devices):
        found.append(_TENSOR_FLOAT)
    return max(found, default=_SINGLE)


def least(slot: Slot, values: NDArray[np.float32]) -> float:
    """Returns the least size that a slot's values are compared by.

    A hundredth of the first loss, a thousandth of the first gradient: what they
    are a difference of stays as large as it was, and so do its errors, while
    they go to nothing. A hundredth of the largest learning rate: a schedule may
    end near 0.

    Args:
        slot: of a run.
        values: float32 `[N]`, of all rows.
    """
    if slot.signal in _LOSSES:
        share, values = 1e-2, values[:1]
    elif slot.signal in _NORMS:
        share, values = 1e-3, values[:1]
    elif slot.signal.endswith("learning_rate"):
        share = 1e-2
    else:
        return 0.0
    finite = np.abs(values[np.isfinite(values)])
    return share * float(finite.max(initial=0.0))


def scaled(
    slots: Sequence[Slot],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    least: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns by how much values differ, of their size: float64 `[N, K]`.

    Of a hundredth of the largest gradient beside it, where one is smaller (a
    bias before BatchNorm has a gradient of nothing but rounding); of a
    thousandth of the largest part of the loss; of the extent of a batch's
    field. Infinite where one of them is not finite and the other is not the
    same.

    Args:
        slots: K of them.
        a: `[N, K]`.
        b: the same of the other run.
        least: float64 `[K]`, sizes that are not gone below.
    """
    size = np.fmax(np.abs(a), np.abs(b))
    size[~np.isfinite(size)] = 0.0
    size = np.maximum(size, least)
    groups: dict[tuple[str, float], list[int]] = {}
    for i, slot in enumerate(slots):
        if (group := _group(slot)) is not None:
            groups.setdefault(group, []).append(i)
    for (_, share), columns in groups.items():
        beside = size[:, columns].max(axis=1, keepdims=True)
        size[:, columns] = np.maximum(size[:, columns], share * beside)
    with np.errstate(all="ignore"):
        found = np.abs(a - b) / size
    found[np.isnan(found)] = np.inf
    found[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    return np.asarray(found)


def _group(slot: Slot) -> tuple[str, float] | None:
    """Returns what slots of one size share, and from which share on of it."""
    signal, subject = slot
    if signal in _EXTENT:
        return subject, 1.0
    if signal == "variable_gradient_norm":
        return signal, 1e-2
    if signal in _LOSSES:
        return signal.partition("loss")[0], 1e-3
    return None


def limits(
    steps: NDArray[np.int64], worst: NDArray[np.float64], unit: float
) -> NDArray[np.float64]:
    """Returns up to where differences are rounding: float64 `[N, 4]`.

    Args:
        steps: int64 `[N]`, ascending.
        worst: float64 `[N, 4]`, the largest difference of each of `KINDS` at
            each step, see `scaled`.
        unit: unit roundoff.
    """
    loss = max(_LOSS, _UNITS_OF_LOSS * unit)
    gradient = max(_GRADIENT, _UNITS_OF_GRADIENT * unit)
    found = np.tile([_GIVEN, _EXACT, loss, gradient], (len(steps), 1))
    unequal = np.flatnonzero(worst.any(axis=1))
    if len(unequal) and unequal[0] >= SAME:
        found[unequal[0], 2] = max(_SUDDEN, unit)
    before = np.maximum.accumulate(worst[:, 2:].max(axis=1, initial=0.0))
    before = np.concatenate([[0.0], before])[: len(steps)]
    gaps = np.minimum(np.diff(steps, prepend=steps[:1] - 1), 1000)
    grown = before * _GROWTH ** (gaps - 1.0)
    found[:, 2] = np.maximum(found[:, 2], _LOSS_GROWTH * grown)
    found[:, 3] = np.maximum(found[:, 3], _GRADIENT_GROWTH * grown)
    found[:, 1:][found[:, 1:] >= 1.0] = np.inf  # nothing is left to be told
    found[before >= _FREE, 1] = np.inf
    return np.asarray(found)
