"""Two recorded runs compared: set-up, where they part, side by side.

Plain data, from what the run directories hold, finished or not. Must not import
keras or tensorflow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gradwatch.compare.names import names
from gradwatch.compare.parting import Parting, parting
from gradwatch.compare.rounding import unit as roundoff
from gradwatch.compare.setup import Pair, setup, weights
from gradwatch.compare.sides import (
    Curves,
    Told,
    curves,
    findings,
    gradients,
    totals,
)
from gradwatch.compare.tables import Recorded, read_recorded
from gradwatch.records import Anatomy, Finding
from gradwatch.runstate import Snapshot
from gradwatch.sinks.findings import read_findings
from gradwatch.sinks.state import known_anatomy, read_state

__all__ = ["Comparison", "compare"]

_POINTS = 100
_RANDOM = re.compile("Dropout|Noise|Random|Sampling|Mixup|CutMix")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs; the second one's names are those of the first where they match.

    Attributes:
        runs: their ids.
        setup: what differs in what was told to them, or found there.
        models: whether their variables do, but for seeds.
        drawing: kinds of their layers that draw random numbers.
        weights: variables whose scales at the beginning differ, if both begin
            at the same step.
        readings: where they part.
        totals: what each has come to.
        gradients: the median gradient norm of each variable of both.
        findings: what was found in either.
        curves: signals at 100 steps, at most.
    """

    runs: tuple[str, str]
    setup: list[Pair]
    models: bool
    drawing: list[str]
    weights: list[Pair]
    readings: Parting
    totals: list[Pair]
    gradients: list[Pair]
    findings: list[Told]
    curves: Curves


class _Kept(NamedTuple):
    """What a run directory holds."""

    snapshot: Snapshot
    anatomy: Anatomy
    recorded: Recorded
    findings: list[Finding]


def compare(one: Path, other: Path) -> Comparison:
    """Compares two recorded runs.

    Args:
        one: a run directory.
        other: another one.

    Raises:
        GradWatchError: one of them is no run directory, or a later gradwatch
            wrote it.
        OSError: one of them cannot be read.
    """
    a, b = _read(one), _read(other)
    named = names(a.anatomy, b.anatomy)
    facts = setup((a.snapshot, b.snapshot), (a.anatomy, b.anatomy), named)
    begins = _begins(a), _begins(b)
    together = begins[0]["first step"] == begins[1]["first step"]
    parts = [f for f in facts if f.name.startswith(("layer.", "variable."))]
    shapes = _shapes(a.anatomy, str), _shapes(b.anatomy, named)
    unlike = {p for p in shapes[0] if shapes[0][p] != shapes[1].get(p)}

    def judged(subject: str) -> str:
        """Names no variable like another one of the first run."""
        name = named(subject)
        return f"{name} (B)" if name in unlike else name

    unit = max(_unit(a), _unit(b))
    return Comparison(
        runs=(a.snapshot["run"]["id"], b.snapshot["run"]["id"]),
        setup=[
            *(fact for fact in facts if fact not in parts),
            *_unequal(*begins),
            *parts,
        ],
        models=shapes[0] != shapes[1],
        drawing=sorted({*_drawing(a), *_drawing(b)}),
        weights=weights(a.anatomy, b.anatomy, named) if together else [],
        readings=parting(a.recorded.tables, b.recorded.tables, unit, judged),
        totals=totals((a.snapshot, b.snapshot), (a.recorded, b.recorded)),
        gradients=gradients(a.recorded, b.recorded, judged),
        findings=findings(a.findings, b.findings, named),
        curves=curves(a.recorded, b.recorded, _POINTS),
    )


def _read(run_dir: Path) -> _Kept:
    snapshot = read_state(run_dir)
    anatomy = known_anatomy(run_dir)
    found = read_findings(run_dir)
    return _Kept(snapshot, anatomy, read_recorded(run_dir), found)


def _shapes(
    anatomy: Anatomy, named: Callable[[str], str]
) -> dict[str, tuple[int, ...]]:
    return {
        named(variable.path): variable.shape
        for variable in anatomy.variables
        if "int" not in variable.dtype
    }


def _begins(kept: _Kept) -> dict[str, Any]:
    """What the first recorded step is, and how large its batch."""
    sizes = kept.recorded.values("examples")
    return {
        "batch size": float(sizes[0]) if len(sizes) else None,
        "first step": next(iter(kept.recorded.steps().tolist()), None),
    }


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Pair]:
    return [Pair(name, (a[name], b[name])) for name in a if a[name] != b[name]]


def _drawing(kept: _Kept) -> Iterator[str]:
    for layer in kept.anatomy.layers:
        if _RANDOM.search(layer.kind):
            yield layer.kind


def _unit(kept: _Kept) -> float:
    mode = kept.anatomy.mode
    return roundoff(mode.get("devices", ()), mode.get("dtypes", ()))
