"""The long run's verdict: what counts as growth. Nothing is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.acceptance import soak


def test_growth() -> None:
    """Only a lasting growth of the second half counts."""
    ramp = np.arange(100.0)
    assert soak.growth(ramp.tolist()) == 45
    assert soak.growth(np.minimum(ramp, 40).tolist()) == 0
    assert soak.growth(np.where(ramp == 75, 1e6, 7.0).tolist()) == 0


def test_long_run_that_leaks_is_told() -> None:
    """Growth beside plain fit's, a full directory and blindness are misses."""
    flat = {name: [10] * 100 for name in ("memory_bytes", "threads", "files")}
    plain = {
        **flat,
        "memory_bytes": list(range(0, 10**6, 10**4)),
        "written_bytes": [0],
    }
    sound = {**plain, "written_bytes": [2**20] * 100, "seen": 1000}
    wrong = (
        ("memory_bytes", list(range(0, 10**8, 10**6)), "memory grew"),
        ("threads", list(range(100)), "threads grew"),
        ("files", list(range(100)), "files grew"),
        ("written_bytes", [2**29] * 100, "larger than its budget"),
        ("seen", 999, "only 999 steps"),
    )
    assert _misses(plain, sound) == []
    for name, value, told in wrong:
        (miss,) = _misses(plain, {**sound, name: value})
        assert told in miss


def _misses(plain: dict[str, Any], watched: dict[str, Any]) -> list[str]:
    results = {"steps": 1000, "plain": plain, "watched": watched}
    return soak.report(results).misses
