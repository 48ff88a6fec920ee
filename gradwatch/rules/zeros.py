"""Gradients that are exactly zero, step after step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import (
    Anatomy,
    Block,
    Cut,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules import cuts
from gradwatch.rules.evidence import owned, owner
from gradwatch.rules.headroom import Headroom, Xray
from gradwatch.rules.windows import Window, Windows, together
from gradwatch.rules.wording import listed

__all__ = ["ZeroGradient"]

_WINDOW = 64
_KERAS = frozenset(
    (
        "",
        *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu"),
        *("gelu", "silu", "swish", "mish", "softplus", "softsign", "glu"),
        *("sigmoid", "tanh", "softmax", "log_softmax", "log_sigmoid"),
        *("hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh"),
        *("hard_shrink", "soft_shrink", "tanh_shrink", "squareplus"),
        *("sparse_plus", "sparse_sigmoid", "sparsemax", "threshold"),
        "exponential",
    )
)
_WEIGHTS = "Look at the sample or class weights; a cast to integers leaves 0."


class _Window(NamedTuple):
    """What a window says.

    Attributes:
        first: its first step.
        last: its last step.
        zero: variables whose gradient was 0 in nearly all of its steps.
        loss: median loss.
        xray: its last X-ray, or that of an earlier one.
        left: what is left to learn, less by what the loss has fallen since.
    """

    first: int
    last: int
    zero: list[str]
    loss: float
    xray: Xray | None
    left: float


class ZeroGradient:
    """The gradient of weights is exactly zero, while the loss could fall.

    Definition: all gradients are exactly 0 in each of the run's first 3 steps
    under a loss above 1e-4: no derivative gets through (a differentiable loss
    has none of 0 unless it is at its lowest, where hinges are at 0 and clipped
    logarithms at 1e-7). Or, in at least 95 % of the steps of a window of 64:
    all gradients are 0 and nine tenths of what can be learned are left
    (`Headroom`), or all sample weights of its last X-ray are 0, as is the loss
    then; or those of all variables of some layers, which hold at least
    half of the weights, from the first window on, beginning with the first
    layer, for a reason that can be seen, and half is left; or those of such
    layers, wherever they are, in 2 windows in a row, and nine tenths are left;
    or those of the last layer of one of several outputs, in 2 windows in a row,
    and nine tenths of its own compiled loss are left at an X-ray meanwhile.
    A reason is an operation whose derivative is 0 everywhere, a sign say, on
    each way from them to the loss, as the graph shows; an activation that is
    none of Keras' own; or other gradients all below 6e-8, the smallest number
    of float16. Steps whose update was dropped
    do not count, nor windows in which all inputs are the same. Unused experts,
    gates that begin at 0, parts that are exactly invariant (the bias of keys,
    the state before a sequence of one) are a lesser part or learn all the same.
    Told once.
    """

    name = "zero_gradient"
    severity: Severity = "warning"
    needs = ("loss", "variable_gradient_norm", "nonfinite", "update_dropped")
    meaning = "The gradient of weights is exactly 0 all the time."
    advice = (
        "Look between these weights and the loss for what has no slope: sign, "
        "round, a clip that is passed, units that are dead or saturated, "
        "float16 without loss scaling."
    )
    _EARLY = 3
    _LOSS = 1e-4
    _SHARE = 0.95
    _LEFT = 0.9
    _HALF_LEFT = 0.5
    _MOST = 0.5

    def __init__(self, headroom: Headroom | None = None) -> None:
        self._headroom = headroom or Headroom()
        self._windows = Windows(_WINDOW)
        self._early: list[tuple[int, bool]] = []
        self._before: _Window | None = None
        self._first: int | None = None
        self._xrays: list[Xray] = []
        self._xray: Xray | None = None
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._headroom.begin(schema)
        self._anatomy, self._own = anatomy, owned(schema)
        gradients = schema.columns("variable_gradient_norm")
        self._places = together(list(gradients.values()))
        trained = [v for v in anatomy.variables if v.path in gradients]
        self._sizes = {v.path: math.prod(v.shape) for v in trained}
        self._paths = list(gradients)
        layers = [owner(v.path) for v in trained]
        self._order = list(dict.fromkeys(layers))
        self._activations = {la.path: la.activation for la in anatomy.layers}
        self._flat = [cut for cut in anatomy.cuts if cut.zero]
        self._loss = schema.column("loss")
        self._bad = [
            column
            for column in map(schema.column, ("nonfinite", "update_dropped"))
            if column is not None
        ]
        self._windows.begin(range(len(schema.slots)))
        self._before = self._xray = None
        self._xrays = []

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if self._told or self._loss is None or not self._paths:
            return
        if isinstance(record, Block):
            yield from self._at_once(record)
        self._xrays += self._headroom.xrays(record)
        for window in self._windows.cut(record):
            if not self._told:
                yield from self._judge(self._seen(window))

    def _zeros(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Bool `[rows, variables]`: which gradients are 0 and should not be."""
        bad = np.max(values[:, self._bad], 1, initial=0.0, keepdims=True) > 0
        return np.asarray((values[:, self._places] == 0) & ~bad, np.bool_)

    def _at_once(self, block: Block) -> Iterator[Finding]:
        """Looks at the first steps of the run."""
        missing = self._EARLY - len(self._early)
        if missing <= 0:
            return
        values = block.values[:missing]
        flat = self._zeros(values).all(1) & (values[:, self._loss] > self._LOSS)
        steps = block.steps[:missing].tolist()
        self._early += zip(steps, flat.tolist(), strict=True)
        if len(self._early) == self._EARLY and all(f for _, f in self._early):
            first, last = self._early[0][0], self._early[-1][0]
            loss = float(values[-1, self._loss])
            yield self._finding(
                _Window(first, last, self._paths, loss, None, math.nan)
            )

    def _seen(self, window: Window) -> _Window:
        first, last = int(window.steps[0]), int(window.steps[-1])
        self._first = first if self._first is None else self._first
        while self._xrays and self._xrays[0].step <= last:
            self._xray = self._xrays.pop(0)
        shares = self._zeros(window.values).mean(0)
        zero = [self._paths[i] for i in np.flatnonzero(shares >= self._SHARE)]
        loss = float(np.median(window.values[:, self._loss]))
        left = self._xray.left if self._xray else math.nan
        then = self._xray.get("loss") if self._xray else math.nan
        left = left * min(1.0, loss / then) if then else 0.0
        return _Window(first, last, zero, loss, self._xray, left)

    def _judge(self, window: _Window) -> Iterator[Finding]:
        before, self._before = self._before, window
        if not window.zero or window.xray is None or window.xray.blind:
            return
        if len(window.zero) == len(self._paths):
            if window.left >= self._LEFT or window.xray.weightless:
                yield self._finding(window)
            return
        paths = self._whole(window.zero)
        if window.first == self._first:
            if window.left >= self._HALF_LEFT and self._cut(paths, window.xray):
                yield self._finding(window._replace(zero=paths))
        elif before is not None and window.left >= self._LEFT:
            paths = [path for path in paths if path in before.zero]
            if self._much(paths):
                found = window._replace(zero=paths, first=before.first)
                yield self._finding(found)
        if before is not None and not self._told:
            yield from self._heads(window.xray, before, window)

    def _heads(
        self, xray: Xray, before: _Window, window: _Window
    ) -> Iterator[Finding]:
        """Looks at the outputs of a model with several, each by itself."""
        for pair in xray.outputs(self._anatomy):
            paths = self._own.get(pair.path, [])
            zero = {*paths} <= {*before.zero} & {*window.zero}
            seen = paths and before.first <= xray.step
            left = xray.left_of(pair.component)
            if zero and seen and left >= self._LEFT:
                first = before.first
                told = window._replace(zero=paths, first=first, left=left)
                return (yield self._finding(told))

    def _whole(self, zero: list[str]) -> list[str]:
        """Returns the variables of layers of which all are zero, in order."""
        rest = {owner(path) for path in self._sizes if path not in zero}
        return [path for path in self._sizes if owner(path) not in rest]

    def _cut(self, paths: list[str], xray: Xray) -> bool:
        """Whether the first layers get nothing, for a reason."""
        if not self._much(paths) or owner(paths[0]) != self._order[0]:
            return False
        own = {self._activations.get(owner(path), "") for path in paths}
        seen = own - _KERAS or self._behind(paths)
        return bool(seen) or xray.underflow > 0.0

    def _behind(self, paths: list[str]) -> list[Cut]:
        """Returns the flat operations that have only these behind them."""
        return [cut for cut in self._flat if {*cut.variables} <= {*paths}]

    def _much(self, paths: list[str]) -> bool:
        size = sum(self._sizes[path] for path in paths)
        return size >= self._MOST * sum(self._sizes.values())

    def _finding(self, window: _Window) -> Finding:
        self._told = True
        paths = window.zero
        everything = len(paths) == len(self._paths)
        behind = self._behind(paths)
        causes, reason = self._reason(window.xray, everything, behind)
        advice = _WEIGHTS if causes == ("data",) else self.advice
        which = (
            f"all {len(paths)} variables ({listed(paths)})"
            if everything
            else f"{len(paths)} of {len(self._paths)} variables "
            f"({listed(paths)})"
        )
        steps = f"from step {window.first} to {window.last}"
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=paths[0],
            first_step=window.first,
            last_step=window.last,
            evidence={
                "zero": paths,
                "variables": len(self._paths),
                "loss": window.loss,
                "left_to_learn": window.left,
                "cuts": [cuts.plain(cut) for cut in behind],
            },
            causes=causes,
            message=(
                f"The gradient of {which} was exactly 0 {steps}, while the "
                f"loss was {window.loss:.4g}.{reason}"
            ),
            advice=cuts.advice(behind[0]) if behind else advice,
        )

    def _reason(
        self, xray: Xray | None, everything: bool, behind: list[Cut]
    ) -> tuple[tuple[str, ...], str]:
        """Returns the causes and what speaks for the first one."""
        if behind:
            told = "; ".join(map(cuts.reason, behind))
            return ("loss_not_differentiable",), f" {told}."
        if xray is None:
            return ("loss_not_differentiable",), ""
        if xray.weightless:
            return ("data",), " All sample weights of the batch are 0."
        for signal, cause, said in (
            ("layer_silent_ratio", "dead_units", "are 0 for all samples"),
            ("layer_bound_ratio", "saturation", "are at their bounds"),
        ):
            layers = xray.all(signal)
            for path, ratio in layers.items():
                if ratio == 1.0:
                    return (cause,), f" All units of {path} {said}."
        if largest := xray.underflow:
            return ("float16_underflow",), (
                f" Other gradients are at most {largest:.1g}: less than "
                "float16 can hold."
            )
        return ("loss_not_differentiable",) if everything else (), ""
