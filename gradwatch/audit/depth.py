"""What a stack of layers with one activation does to gradients. numpy only.

Mean-field theory of wide layers (Poole et al. 2016, "Exponential
expressivity"; Schoenholz et al. 2017, "Deep information propagation"): with
weights of variance g² / fan_in, inputs of an activation f are normal,
with the variance q' = g² E[f(sqrt(q) z)²] a layer later, and the square of a
gradient's norm is multiplied by g² E[f'(sqrt(q) z)²] in each layer.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["LIMIT", "Shape", "Stack", "moments", "stack"]

LIMIT = 1e6
"""Factor of a gradient's norm by which it has vanished or exploded."""

_DEEP = 1000
_OFF = (0.8, 1.0, 1.25)
"""Variances of the first inputs: data never have exactly the right one, and of
a variance that is no stable fixed point all leave."""

_NODES = np.linspace(-6.0, 6.0, 601)
_MASS = np.exp(-(_NODES**2) / 2)
_MASS /= _MASS.sum()


class Shape(NamedTuple):
    """A scalar function, as a table.

    Attributes:
        x: float64 `[N]`, ascending.
        value: float64 `[N]`.
        slope: float64 `[N]`, its derivative.
    """

    x: Any
    value: Any
    slope: Any


class Stack(NamedTuple):
    """What happens in a deep stack.

    Attributes:
        layers: after which the norm has changed by `LIMIT`.
        end: what has happened then; `stays` if nothing has in 1000 layers.
        factor: by which one layer multiplies the norm, on average.
    """

    layers: int
    end: Literal["vanishing", "exploding", "stays"]
    factor: float


def moments(shape: Shape, variance: float = 1.0) -> tuple[float, float]:
    """Returns E[f²] and E[f'²] for normal inputs of a variance."""
    x = math.sqrt(variance) * _NODES
    with np.errstate(all="ignore"):
        value = np.interp(x, shape.x, shape.value)
        slope = np.interp(x, shape.x, shape.slope)
        return float(_MASS @ value**2), float(_MASS @ slope**2)


def stack(shape: Shape, gain: float) -> Stack:
    """Returns what a stack of layers comes to, whichever data it gets.

    Args:
        shape: of the activation.
        gain: g, of the weights.
    """
    found = [_from(shape, gain, q * _first(shape, gain)) for q in _OFF]
    return min(found, key=lambda one: one.layers)


def _first(shape: Shape, gain: float) -> float:
    """Variance at which a stack begins: where its gain keeps it, if it does."""
    keeps = abs(gain**2 * moments(shape)[0] - 1) < 1e-6
    return 1.0 if keeps else gain**2


def _from(shape: Shape, gain: float, variance: float) -> Stack:
    total, limit = 0.0, math.log(LIMIT)
    for layer in range(1, _DEEP + 1):
        square, slope = moments(shape, variance)
        growth = gain**2 * slope
        total += 0.5 * math.log(growth) if growth > 0 else -limit
        variance = gain**2 * square
        if abs(total) >= limit:
            return _stack(layer, total)
        # What leaves the range of numbers takes the gradient with it.
        if not 1 / LIMIT**2 < variance < LIMIT**2:
            return _stack(layer, math.copysign(limit, variance - 1))
    return Stack(_DEEP, "stays", math.exp(total / _DEEP))


def _stack(layers: int, total: float) -> Stack:
    end: Literal["vanishing", "exploding"]
    end = "vanishing" if total < 0 else "exploding"
    return Stack(layers, end, math.exp(total / layers))
