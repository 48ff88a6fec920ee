"""The examples run and show what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted(
    (Path(__file__).resolve().parents[1] / "examples").glob("0*.py")
)

# What a reader is to see; a new example needs an entry.
SHOWS = {
    "01_first_run": ("finished after 150 of 150 steps", "no findings"),
    "02_nan_hunt": (
        "failed (nonfinite)",
        "critical: nonfinite_loss at step",
        "weights are finite: True",
        "finished after 540 of 540 steps",
    ),
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every example runs, says what it is for and leaves run directories."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    for said in SHOWS[path.stem]:
        assert said in printed
    assert "weights are finite: False" not in printed
    assert list(tmp_path.glob("runs/*/state.json"))
