"""A recording is what a rule gets, and stays so in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gradwatch.records import Beat, Block, Epoch
from gradwatch.replay import Opened, judge
from gradwatch.rules import default_rules
from gradwatch.testing.__main__ import app
from gradwatch.testing.recording import Recording, load, save

_FAULTY = "holes_in_table"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of a scenario and of its twin, made by the command."""
    out = tmp_path_factory.mktemp("recordings")
    arguments = ["record", "--out", str(out), "--only", _FAULTY]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return out


def _same(a: Any, b: Any) -> bool:
    """Whether two records hold the same, NaN included."""
    if isinstance(a, Block):
        ours: list[Any] = [a.steps, a.times, a.values, a.xray]
        theirs: list[Any] = [b.steps, b.times, b.values, b.xray]
        pairs = zip(
            [*ours, *a.histograms.values()],
            [*theirs, *b.histograms.values()],
            strict=True,
        )
        for x, y in pairs:
            np.testing.assert_array_equal(x, y)
        return list(a.histograms) == list(b.histograms)
    return repr(a) == repr(b)


def test_survives_its_file(folder: Path, tmp_path: Path) -> None:
    """Saved again, a recording is the same, of the same types."""
    first = load(folder / f"{_FAULTY}_fixed-0.zip")
    save(first, tmp_path / "again.zip")
    again = load(tmp_path / "again.zip")
    assert len(first.received) == len(again.received)
    for a, b in zip(first.received, again.received, strict=True):
        assert _same(a, b)


def test_holds_all_that_rules_get(folder: Path) -> None:
    """Steps, X-rays, histograms, epochs and beats are there, in order."""
    twin = load(folder / f"{_FAULTY}_fixed-0.zip")
    kinds = {type(item) for item in twin.received}
    assert kinds == {Opened, Block, Epoch, Beat}
    blocks = [item for item in twin.received if isinstance(item, Block)]
    steps = np.concatenate([block.steps for block in blocks])
    np.testing.assert_array_equal(steps, np.arange(twin.steps))
    xrays = steps[np.concatenate([block.xray for block in blocks])]
    assert xrays.tolist() == [10, 20, 50, 100]
    assert all(block.histograms for block in blocks if block.xray.any())
    assert twin.quality > 0.5
    assert twin.loss < 1
    assert twin.error == ""


def _findings(recording: Recording) -> list[tuple[str, int]]:
    found = judge(default_rules(), recording.received)
    return [(finding.rule, finding.first_step) for finding in found]


def test_rules_judge_a_recording(folder: Path) -> None:
    """Replayed, the fault is found where it is, and none in the twin."""
    faulty = load(folder / f"{_FAULTY}-0.zip")
    ((rule, step),) = _findings(faulty)
    assert rule.startswith("nonfinite_")
    assert step == faulty.steps - 1
    assert _findings(load(folder / f"{_FAULTY}_fixed-0.zip")) == []


def test_labels_are_shown(folder: Path) -> None:
    """The table has a row for each scenario that was recorded."""
    arguments = ["labels", "--out", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"| {_FAULTY} | nonfinite_batch |" in done.output
    assert "0 labels do not hold." in done.output
