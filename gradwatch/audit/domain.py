"""Where the inputs of an audited function come from.

numpy only: random points, and the values at which functions tend to break.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gradwatch.errors import GradWatchError, expected

__all__ = ["Domain", "Kind", "parse_domain", "stated_domains"]

Kind = Literal[
    "real",
    "positive",
    "unit",
    "simplex",
    "binary",
    "one_hot",
    "signs",
    "ids",
    "range",
    "given",
]
"""`real`: any number; `positive`: above 0; `unit`: from 0 to 1; `simplex`: rows
of probabilities that add up to 1; `binary`: 0 or 1; `one_hot`: rows with one 1;
`signs`: -1 or 1; `ids`: whole numbers from `low` to `high`; `range`: from `low`
to `high`; `given`: rows of the user's own array."""

_WORDS: dict[Kind, str] = {
    "real": "any real numbers",
    "positive": "positive numbers",
    "unit": "numbers from 0 to 1",
    "simplex": "rows of probabilities",
    "binary": "0 or 1",
    "one_hot": "one-hot rows",
    "signs": "-1 or 1",
    "ids": "whole numbers from {low:g} to {high:g}",
    "range": "numbers from {low:g} to {high:g}",
    "given": "the given array",
}
_SPECIAL: dict[Kind, tuple[float, ...]] = {
    "real": (0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 20.0, -20.0),
    "positive": (1.0, 0.5, 1e-3, 30.0),
    "unit": (0.0, 1.0, 0.5, 1e-6, 1.0 - 1e-6),
    "simplex": (),
}
_TEXT = re.compile(r"(\d+(?:x\d+)*)(?:/(\S+?)\.\.(\S+?))?(/int)?")


@dataclass(frozen=True)
class Domain:
    """Shape and values of one input.

    Attributes:
        shape: of one input, the batch included: `(4, 3)`.
        kind: see `Kind`.
        low: least value, of `ids` and `range`.
        high: largest value, of `ids` and `range`.
        array: float64 `[examples, *shape[1:]]`, of `given`.
        whole: whether the function gets integers by dtype.
    """

    shape: tuple[int, ...]
    kind: Kind = "real"
    low: float = 0.0
    high: float = 1.0
    array: Any = None
    whole: bool = False

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "a scalar"
        words = _WORDS[self.kind].format(low=self.low, high=self.high)
        return f"{shape}, {words}"

    @property
    def smooth(self) -> bool:
        """Whether there are values between two of its values."""
        return self.kind != "ids" and not self.whole

    def sample(self, random: np.random.Generator, count: int) -> Any:
        """Returns float64 `[count, *shape]`: points inside of the domain.

        Real numbers come in three widths, 0.5, 1 and 3, so that both the
        middle and the tails of a function are seen.
        """
        shape = (count, *self.shape)
        match self.kind:
            case "real":
                width = np.resize((0.5, 1.0, 3.0), count)
                found = random.normal(size=shape)
                return found * width.reshape(-1, *[1] * len(self.shape))
            case "positive":
                return random.gamma(2.0, size=shape) + 0.05
            case "unit":
                return random.uniform(0.03, 0.97, size=shape)
            case "simplex":
                found = random.gamma(1.5, size=shape) + 0.05
                return found / found.sum(-1, keepdims=True)
            case "range":
                return random.uniform(self.low, self.high, size=shape)
            case "given":
                return self._rows(random, count)
        return self._discrete(random, shape)

    def _discrete(
        self, random: np.random.Generator, shape: tuple[int, ...]
    ) -> Any:
        match self.kind:
            case "binary":
                return random.integers(0, 2, size=shape).astype(float)
            case "signs":
                return random.integers(0, 2, size=shape) * 2.0 - 1.0
            case "one_hot":
                classes = shape[-1]
                return np.eye(classes)[
                    random.integers(classes, size=shape[:-1])
                ]
        ids = random.integers(int(self.low), int(self.high) + 1, size=shape)
        return ids.astype(float)

    def _rows(self, random: np.random.Generator, count: int) -> Any:
        rows = self.shape[0] if self.shape else 1
        if not self.shape:
            return np.repeat(np.asarray(self.array, float), count)
        first = np.arange(rows)[None] % len(self.array)
        others = random.integers(len(self.array), size=(count - 1, rows))
        return self.array[np.concatenate([first, others])]

    def special(self) -> tuple[float, ...]:
        """Values at which functions tend to have kinks, poles or branches."""
        if self.kind == "range":
            middle = (self.low + self.high) / 2
            inside = [v for v in (0.0, 1.0) if self.low < v < self.high]
            return (self.low, self.high, middle, *inside)
        return _SPECIAL.get(self.kind, ())

    def clipped(self, values: Any) -> Any:
        """Returns `values` pulled back inside of the domain's bounds."""
        match self.kind:
            case "positive":
                return np.maximum(values, 1e-6)
            case "unit" | "simplex":
                return np.clip(values, 0.0, 1.0)
            case "range":
                return np.clip(values, self.low, self.high)
        return values


def parse_domain(name: str, given: Any) -> Domain:
    """Returns the domain that a user has stated.

    Args:
        name: of the input, for errors.
        given: a `Domain`; an array `[examples, ...]`; a shape `(4, 3)`; a shape
            and a range `((4, 3), (0, 1))`; or text, `"4x3"`, `"4x3/0..1"`,
            `"4/0..9/int"`.

    Raises:
        GradWatchError: it is none of these.
    """
    if isinstance(given, Domain):
        return given
    if isinstance(given, str):
        found = _parsed(given)
        if found is not None:
            return found
    elif isinstance(given, tuple) and given and _is_shape(given):
        return Domain(tuple(map(int, given)))
    elif isinstance(given, tuple) and len(given) == 2 and _is_shape(given[0]):
        low, high = map(float, given[1])
        if low < high:
            return Domain(tuple(map(int, given[0])), "range", low, high)
    else:
        found = _of_array(given)
        if found is not None:
            return found
    raise GradWatchError(
        expected(
            f"inputs[{name!r}]",
            'an array, a shape and a range `((4, 3), (0, 1))`, or "4x3/0..1"',
            given,
            "State what the function is called with.",
        )
    )


def stated_domains(inputs: Any, names: Sequence[str]) -> dict[str, Domain]:
    """Returns what a user has stated of inputs, in the order of arguments.

    Args:
        inputs: `None`, a dict by name, or as many as there are names.
        names: of the arguments.

    Raises:
        GradWatchError: names or domains are not as they should be.
    """
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping):
        single = len(names) == 1
        if not single and not (
            isinstance(inputs, (tuple, list)) and len(inputs) == len(names)
        ):
            raise GradWatchError(
                expected(
                    "inputs",
                    f"a dict with {', '.join(names)}",
                    inputs,
                    "Name each argument.",
                )
            )
        inputs = {names[0]: inputs} if single else dict(zip(names, inputs))
    unknown = [name for name in inputs if name not in names]
    if unknown:
        raise GradWatchError(
            expected(
                "inputs",
                f"names of arguments ({', '.join(names)})",
                unknown,
                "Name each argument as the function does.",
            )
        )
    ordered = [name for name in names if name in inputs]
    return {name: parse_domain(name, inputs[name]) for name in ordered}


def _is_shape(given: Any) -> bool:
    return isinstance(given, Sequence) and all(
        isinstance(size, int) and size > 0 for size in given
    )


def _parsed(text: str) -> Domain | None:
    found = _TEXT.fullmatch(text)
    if not found:
        return None
    shape = tuple(int(size) for size in found[1].split("x"))
    try:
        low, high = float(found[2] or 0), float(found[3] or 1)
    except ValueError:
        return None
    if found[4]:
        return Domain(shape, "ids", low, high, whole=True)
    if found[2] is None:
        return Domain(shape)
    return Domain(shape, "range", low, high) if low < high else None


def _of_array(given: Any) -> Domain | None:
    """A batch of at most 4 examples, of which all are drawn from."""
    try:
        array = np.asarray(given)
        whole = array.dtype.kind in "iu"
        array = array.astype(float)
    except (TypeError, ValueError):
        return None
    if array.dtype.kind != "f" or not array.size:
        return None
    shape = (min(4, len(array)), *array.shape[1:]) if array.ndim else ()
    return Domain(shape, "given", array=array, whole=whole)
