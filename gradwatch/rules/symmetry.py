"""Units that are copies of each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.evidence import kernels, step_ratios
from gradwatch.rules.rows import Columns, Row, xrays
from gradwatch.rules.wording import listed

__all__ = ["SymmetricWeights"]


class SymmetricWeights:
    """All units of a layer are copies of each other, and training keeps it so.

    Definition: at 2 X-rays in a row, the entries of a trained kernel with at
    least 2 units differ between its units (`variable_unit_spread` times the
    norm) by less than 1 % of what one step moves it, and by less than 1e-3 of
    their size, although the step does move it by more than 1e-5 of its size.
    Units that get gradients of their own are apart by about a step after the
    first one, however small the rate is; units that began equal and get equal
    gradients stay equal for ever, up to rounding (1e-7). So heads and
    adapters that begin at 0 are apart in time, and so are scales that begin at
    1. Told once.
    """

    name = "symmetric_weights"
    severity: Severity = "warning"
    needs = (
        "variable_unit_spread",
        "variable_weight_norm",
        "variable_update_norm",
    )
    meaning = "The units of a layer are copies and stay so."
    advice = (
        "Start kernels at random (`glorot_uniform`, `he_normal`): a layer that "
        "starts constant is worth a single unit."
    )
    _LASTS = 2
    _SPREAD = 1e-3
    _STEP = 0.01
    _MOVED = 1e-5

    def __init__(self) -> None:
        self._seen: dict[str, list[int]] = {}
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._columns = Columns(schema)
        several = {v.path for v in anatomy.variables if v.shape[-1:] > (1,)}
        paths = kernels(anatomy, schema)
        self._kernels = [path for path in paths if path in several]
        self._reads = [
            self._columns.reader(signal, self._kernels) for signal in self.needs
        ]
        self._ratios = step_ratios(self._columns, self._kernels)
        self._units = {v.path: v.shape[-1:] for v in anatomy.variables}

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row in xrays(record):
            self._seen = {
                path: [*self._seen.get(path, []), row.step]
                for path in self._copies(row)
            }
            lasting = [
                path
                for path, steps in self._seen.items()
                if len(steps) >= self._LASTS
            ]
            if lasting and not self._told:
                self._told = True
                yield self._finding(row, lasting)

    def _copies(self, row: Row) -> list[str]:
        """Returns the kernels whose units are copies that move."""
        spread, norm, moved = (read(row) for read in self._reads)
        with np.errstate(invalid="ignore"):  # NaN is data
            copies = (
                (norm > 0.0)
                & (moved > self._MOVED * norm)
                & (spread < self._SPREAD)
                & (spread * norm < self._STEP * moved)
            )
        return [self._kernels[i] for i in np.flatnonzero(copies)]

    def _finding(self, row: Row, paths: list[str]) -> Finding:
        path = paths[0]
        units = self._units[path][0]
        also = f"; so have those of {listed(paths[1:])}" if paths[1:] else ""
        spread = self._columns.get(row, "variable_unit_spread", path)
        ratios = dict(zip(self._kernels, self._ratios(row).tolist()))
        return Finding(
            rule=self.name,
            severity=self.severity,
            subject=path,
            first_step=self._seen[path][0],
            last_step=row.step,
            evidence={
                "unit_spread": {
                    p: self._columns.get(row, "variable_unit_spread", p)
                    for p in paths
                },
                "step_ratio": ratios[path],
            },
            causes=("initialisation",),
            message=(
                f"The {units} units of {path} have the same weights, up to "
                f"{spread:.1g} of their size{also}. They get the same "
                "gradients and stay copies: training cannot tell them apart."
            ),
            advice=self.advice,
        )
