"""Is `fit` still running? Keras tells no callback when an exception ends it.

Read in Keras 3.15.1: `backend/tensorflow/trainer.py` (fit) and
`utils/traceback_utils.py` (error_handler, the wrapper around it).
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType

from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

__all__ = ["FitFrame"]

_WRAPPER = TensorFlowTrainer.fit.__code__
_FIT = inspect.unwrap(TensorFlowTrainer.fit).__code__


class FitFrame:
    """The call of `fit` that the making of this object is a part of.

    Attributes:
        batch_size: examples of a whole batch, `None` if `fit` does not know.
    """

    def __init__(self) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code is not _FIT:
            frame = frame.f_back
        self.batch_size = None if frame is None else _batch_size(frame)
        # The wrapper's frame lives exactly as long and holds nothing that
        # somebody who looks at a traceback would miss.
        above = frame.f_back if frame is not None else None
        wrapped = above is not None and above.f_code is _WRAPPER
        self._frame = above if wrapped else frame
        self._outside = frame is None

    def runs(self) -> bool:
        """Whether that call still runs; any thread. True if there was none.

        Asks the frame, which refuses to be cleared while it runs. To look at
        the stacks of other threads (`sys._current_frames`) is no way: it was
        seen to deadlock with TensorFlow, when the collector ran in it
        (CPython 3.11).
        """
        if self._frame is None:
            return self._outside
        try:
            self._frame.clear()
        except RuntimeError:
            return True
        self._frame = None
        return False


def _batch_size(frame: FrameType) -> int | None:
    try:
        size = frame.f_locals["epoch_iterator"].data_adapter.batch_size
    except Exception:  # Keras' own business
        return None
    return size if isinstance(size, int) else None
