"""What commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gradwatch.terminal import typed


def test_a_command_is_named_as_a_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone if it is on the path, else below this folder, else in full."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "gradwatch"):
        (folder / name).touch(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert typed() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert typed() == ".venv/bin/"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert typed() == f"{folder}/"
