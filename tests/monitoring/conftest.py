"""Real promtool and amtool, on files that were built here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gradwatch.monitoring.files import files, write
from gradwatch.monitoring.thresholds import Settings

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tool() -> Tool:
    """Runs a program of Debian's packages; returns what it said."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        binary = shutil.which(name)
        if not binary:
            pytest.fail(f"`{name}` is not installed: see `make debian`")
        return subprocess.run(
            [binary, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Path]:
    """Builds all files with some settings; returns their folder."""

    def build(**settings: object) -> Path:
        folder = tmp_path / "built"
        write(folder, files(Settings(**settings)))  # type: ignore[arg-type]
        return folder

    return build
