"""Spikes: single steps far outside of all that was usual."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.windows import Windows

__all__ = ["GradientSpike", "LossSpike"]

_WINDOW = 16
_FAR = 30.0


class _Usual:
    """The largest median of the windows so far, of each column.

    Attributes:
        before: the same without the newest window: what that was judged by.
    """

    def __init__(self, columns: int) -> None:
        self._largest = self.before = np.full(columns, -np.inf)

    def far(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Bool `[N]`: rows of the next window with a value far outside.

        Args:
            values: float64 `[N, C]`, magnitudes.
        """
        self.before = self._largest
        known = np.isfinite(self.before) & (self.before > 0)
        outside = known & (values > _FAR * self.before)
        median = np.sort(values, 0)[len(values) // 2]  # NaN comes last
        self._largest = np.fmax(self.before, median)
        found: NDArray[np.bool_] = (outside & np.isfinite(values)).any(1)
        return found


class GradientSpike:
    """Steps whose gradient is far outside of all that was usual.

    Definition: a norm of more than 30 times the largest median of any window of
    16 steps before. Threshold: norms of batches scatter by a factor of a few
    around their median; a net that has learned everything meets single hard
    examples that stand out by a factor of 100, but they do not reach 30 times
    what was usual when it knew nothing. Info, told once; a warning if windows
    with such steps are at least three.
    """

    name = "gradient_spike"
    severity: Severity = "warning"
    needs = ("gradient_norm",)
    meaning = "Single gradients are far larger than all that was usual."
    advice = (
        "Look at the examples of these batches: a wrong unit, an outlier or a "
        "broken record; clipping by the global norm bounds what they can do."
    )
    _SEVERAL = 3

    def __init__(self) -> None:
        self._windows = Windows(_WINDOW)
        self._usual = _Usual(1)
        self._spikes: list[tuple[int, float]] = []

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        column = schema.column("gradient_norm")
        self._measured = column is not None
        self._windows.begin([] if column is None else [column])

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for window in self._windows.cut(record):
            if not self._measured:
                continue
            norms = window.values.astype(float)
            far = np.flatnonzero(self._usual.far(norms))
            if len(far):
                worst = far[np.argmax(norms[far, 0])]
                spike = int(window.steps[worst]), float(norms[worst, 0])
                self._spikes.append(spike)
                if len(self._spikes) in (1, self._SEVERAL):
                    yield self._finding(int(window.steps[-1]))

    def _finding(self, now: int) -> Finding:
        several = len(self._spikes) >= self._SEVERAL
        told = ", ".join(f"{norm:.3g} at step {s}" for s, norm in self._spikes)
        usual = float(self._usual.before[0])
        return Finding(
            rule=self.name,
            severity="warning" if several else "info",
            subject="",
            first_step=self._spikes[0][0],
            last_step=now,
            evidence={"spikes": dict(self._spikes), "usual_norm": usual},
            causes=("data",),
            message=(
                f"The gradient's norm, usually {usual:.3g} at most (by the "
                f"median of {_WINDOW} steps), jumped to {told}."
            ),
            advice=self.advice,
        )


class LossSpike:
    """A step far outside, after which the loss does not come back.

    Definition: a loss or a gradient norm of more than 30 times the largest
    median of any window of 16 steps before; and the median of 64 losses, from
    the second window after it on, is above that of the two windows before it by
    more than six standard errors of this difference (from the median absolute
    deviation; 1e-9 for normal noise) and by 2 %. A rollback takes a model to
    where its loss was, so what was before it does not count. Told once. A spike
    that returns is told by `gradient_spike`.
    """

    name = "loss_spike"
    severity: Severity = "warning"
    needs = ("loss", "gradient_norm")
    meaning = "A single step threw the loss up, and it does not return."
    advice = (
        "Go back to a checkpoint from before, find out what was in that batch "
        "or what changed there (a rate?), and clip by the global norm."
    )
    _BEFORE, _AFTER = 2, 4  # windows; one, just after it, is left out

    def __init__(self) -> None:
        self._windows = Windows(_WINDOW)
        self._usual = _Usual(2)
        self._recent: list[tuple[NDArray[np.float64], tuple[int, float] | None]]
        self._recent = []
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        columns = [schema.column(signal) for signal in self.needs]
        known = [column for column in columns if column is not None]
        self._measured = len(known) == len(columns)
        back = schema.column("rollback_steps")
        self._windows.begin(known if back is None else [*known, back])

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for window in self._windows.cut(record):
            if not self._measured or self._told:
                continue
            values = window.values[:, :2].astype(float)
            if (window.values[:, 2:] > 0).any():
                self._recent = []
            far = np.flatnonzero(self._usual.far(np.abs(values)))
            spike = None
            if len(far):
                spike = int(window.steps[far[0]]), float(values[far[0], 0])
            length = self._BEFORE + 2 + self._AFTER
            self._recent = [*self._recent, (values[:, 0], spike)][-length:]
            if len(self._recent) == length:
                yield from self._look_back(int(window.steps[-1]))

    def _look_back(self, now: int) -> Iterator[Finding]:
        """Judges the spike, if any, after which enough has come."""
        losses, spikes = zip(*self._recent)
        spike = spikes[self._BEFORE]
        if spike is None:
            return
        before = np.concatenate(losses[: self._BEFORE])
        after = np.concatenate(losses[-self._AFTER :])
        levels = float(np.nanmedian(before)), float(np.nanmedian(after))
        error = np.hypot(_error(before), _error(after))
        if levels[1] - levels[0] > max(6 * error, 0.02 * abs(levels[0])):
            self._told = True
            step, loss = spike
            yield self._finding(step, loss, levels, now)

    def _finding(
        self, step: int, loss: float, levels: tuple[float, float], now: int
    ) -> Finding:
        before, after = levels
        return Finding(
            rule=self.name,
            severity="warning",
            subject="",
            first_step=step,
            last_step=now,
            evidence={
                "spike": loss,
                "loss_before": before,
                "loss_after": after,
            },
            causes=("data", "learning_rate_high"),
            message=(
                f"At step {step} the loss jumped to {loss:.3g} and did not "
                f"return: it was {before:.3g} before and is {after:.3g} now."
            ),
            advice=self.advice,
        )


def _error(values: NDArray[np.float64]) -> float:
    """Standard error of the median, from the median absolute deviation."""
    away = np.nanmedian(np.abs(values - np.nanmedian(values)))
    return float(1.4826 * 1.2533 * away / np.sqrt(len(values)))
