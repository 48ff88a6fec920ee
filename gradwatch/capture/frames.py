"""Is `fit` still running? Keras tells no callback when an exception ends it.

Read in Keras 3.15.1: `backend/tensorflow/trainer.py` (fit).
"""

from __future__ import annotations

import inspect
import sys

from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

__all__ = ["fit_runs"]

_FIT = inspect.unwrap(TensorFlowTrainer.fit).__code__


def fit_runs(thread: int) -> bool:
    """Returns whether Keras' `fit` is on the stack of a thread.

    Args:
        thread: its `threading.get_ident()`. May be another thread than ours.
    """
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code is not _FIT:
        frame = frame.f_back
    return frame is not None
