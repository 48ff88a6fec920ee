"""Updates: do gradients change the weights, and as much as they should?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import (
    Anatomy,
    Block,
    Finding,
    Record,
    Schema,
    Severity,
)
from gradwatch.rules.windows import Window, Windows
from gradwatch.rules.wording import listed

__all__ = ["ClippingAlways", "SkippedUpdates"]

_WINDOW = 64
_HALF = _WINDOW // 2


class SkippedUpdates:
    """Loss scaling drops updates all the time.

    Definition: in two windows of 32 steps in a row, not the run's first, at
    least half of the updates were dropped although no step was bad
    (`nonfinite`); critical if all were. Threshold: each update that dynamic
    loss scaling drops halves the scale, and 2,000 good steps double it (Keras
    3.15.1, `optimizers/loss_scale_optimizer.py`, as Micikevicius et al. 2018);
    so 32 of them in 64 steps divide it by 4e9, and a scale that fits was passed
    long ago. The first window is left out: a scale may start far too high.
    Told once, and again if it becomes critical.
    """

    name = "skipped_updates"
    severity: Severity = "critical"
    needs = ("update_dropped", "nonfinite")
    meaning = "Loss scaling drops most updates, so the model hardly learns."
    advice = (
        "Gradients are not finite at any scale: look for a layer or loss that "
        "overflows float16 (a sum, an exponential, a mask of -1e9), and let it "
        "compute in float32."
    )

    def __init__(self) -> None:
        self._windows = Windows(_HALF)
        self._before: Window | None = None
        self._lost: list[tuple[int, NDArray[np.bool_]]] = []
        self._told = 0.0
        self._bad = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        signals = (*self.needs, "loss_scale")
        columns = [schema.column(signal) for signal in signals]
        self._scaled = None not in columns
        self._dropped = columns[0]
        self._gradients = schema.columns("variable_gradient_norm")
        known = [column for column in columns if column is not None]
        self._windows.begin(known)
        self._before = None
        self._lost = []

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        if isinstance(record, Block) and self._scaled:
            self._keep(record)
        for half in self._windows.cut(record):
            if not self._scaled:
                continue
            self._bad |= bool((half.values[:, 1] > 0).any())
            before, self._before = self._before, half
            if before is None or before.steps[0] < _HALF or self._bad:
                continue
            window = Window(
                np.concatenate([before.steps, half.steps]),
                np.concatenate([before.values, half.values]),
            )
            share = float(np.mean(window.values[:, 0] > 0))
            if share >= 0.5 > self._told or share == 1.0 > self._told:
                self._told = share
                yield self._finding(window, share)

    def _keep(self, block: Block) -> None:
        """Keeps which gradients were not finite where updates were dropped."""
        dropped = block.values[:, self._dropped] > 0
        if dropped.any():
            norms = block.values[dropped][:, list(self._gradients.values())]
            lost = zip(block.steps[dropped].tolist(), ~np.isfinite(norms))
            self._lost = [*self._lost[-_WINDOW:], *lost]

    def _finding(self, window: Window, share: float) -> Finding:
        scales = window.values[:, 2].astype(float)
        first, last = int(window.steps[0]), int(window.steps[-1])
        rows = [lost for step, lost in self._lost if first <= step <= last]
        lost = np.mean(rows, axis=0)
        paths = [p for p, part in zip(self._gradients, lost) if part > 0.5]
        where = f" The gradient of {listed(paths)} is not finite."
        return Finding(
            rule=self.name,
            severity="critical" if share == 1.0 else "warning",
            subject=paths[0] if paths else "",
            first_step=first,
            last_step=last,
            evidence={
                "dropped_share": share,
                "loss_scale_before": float(scales[0]),
                "loss_scale_after": float(scales[-1]),
                "nonfinite_gradients": paths,
            },
            causes=("overflow",),
            message=(
                f"Loss scaling dropped {share:.0%} of the updates of the steps "
                f"{first} to {last}; its scale fell from {scales[0]:.3g} to "
                f"{scales[-1]:.3g}.{where if paths else ''}"
            ),
            advice=self.advice,
        )


class ClippingAlways:
    """The optimizer's clipping shortens nearly every gradient.

    Definition: in three windows of 64 steps in a row, clipping shortened the
    gradient (`clip_factor` below 1) in at least 95 % of the steps that have a
    factor. Threshold: an occasional clip guards against spikes; where it always
    binds, the bound and not the gradient sets the length of the step, which is
    worth knowing and often wanted (Pascanu et al. 2013 clip at a multiple of
    the usual norm). Told once.
    """

    name = "clipping_always"
    severity: Severity = "info"
    needs = ("clip_factor",)
    meaning = "Clipping binds at nearly every step."
    advice = (
        "If that is not meant, raise the bound above the usual gradient norm; "
        "otherwise tune bound and learning rate as one."
    )
    _LASTS = 3
    _SHARE = 0.95

    def __init__(self) -> None:
        self._windows = Windows(_WINDOW)
        self._seen: list[Window] = []
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        columns = [schema.column(s) for s in ("clip_factor", "gradient_norm")]
        known = [column for column in columns if column is not None]
        self._measured = len(known) == 2
        self._windows.begin(known)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for window in self._windows.cut(record):
            if self._told or not self._measured:
                continue
            factors = window.values[:, 0]
            factors = factors[np.isfinite(factors)]
            binds = len(factors) and np.mean(factors < 1) >= self._SHARE
            self._seen = [*self._seen, window] if binds else []
            if len(self._seen) == self._LASTS:
                self._told = True
                yield self._finding()

    def _finding(self) -> Finding:
        values = np.concatenate([window.values for window in self._seen])
        factor = float(np.nanmedian(values[:, 0]))
        norm = float(np.nanmedian(values[:, 1]))
        first = int(self._seen[0].steps[0])
        last = int(self._seen[-1].steps[-1])
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject="",
            first_step=first,
            last_step=last,
            evidence={"clip_factor": factor, "gradient_norm": norm},
            causes=(),
            message=(
                f"Clipping shortened nearly every gradient of steps {first} to "
                f"{last}, in the median to {factor:.2g} of its length; the "
                f"median norm before was {norm:.3g}."
            ),
            advice=self.advice,
        )
