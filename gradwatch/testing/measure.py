"""Trains scenarios: measured by gradwatch, judged by nobody."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import keras
import numpy as np

from gradwatch.callback import GradWatch
from gradwatch.records import Epoch
from gradwatch.testing.recording import Recorder, Recording
from gradwatch.testing.scenario import Scenario

__all__ = ["measure", "train"]


def measure(scenario: Scenario, seed: int = 0) -> Recording:
    """Trains a scenario under a GradWatch without rules.

    It takes all X-rays that are planned: which of them the default budget
    would leave out depends on the clock, these do not.

    Args:
        scenario: what to train.
        seed: of everything that is random.
    """
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as logdir:
        watch = GradWatch(
            logdir,
            name=scenario.name[:40],
            rules=[recorder],
            budget=1.0,
            autopsy_seconds=0,
        )
        quality, seconds, error = train(scenario, seed, watch)
    epochs = [r for r in recorder.received if isinstance(r, Epoch)]
    loss = epochs[-1].metrics.get("loss", np.nan) if epochs else np.nan
    return Recording(
        scenario.name,
        seed,
        quality,
        float(loss),
        seconds,
        error,
        tuple(recorder.received),
    )


def train(
    scenario: Scenario, seed: int = 0, *callbacks: Any
) -> tuple[float, float, str]:
    """Trains a scenario, watched or not.

    Returns:
        Its quality, the seconds it took, and the message of the `ValueError`
        that ended it, which is what Keras raises if nothing can be trained.
    """
    program = scenario.program(seed)
    error = ""
    start = time.perf_counter()
    try:
        program.train(callbacks)
    except ValueError as raised:
        error = str(raised)
    seconds = time.perf_counter() - start
    quality = program.quality()
    keras.backend.clear_session()
    return quality, seconds, error
